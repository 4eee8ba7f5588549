"""A new index version beside the active one: built under its lock, verified, then let answer.

What is not verified is never activated, and what fell short only where that is forced. Whatever
ends a build before its verification, its version fails and queries see what they saw.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from common.errors import FailedPrecondition, SluiceError
from common.requester import requester
from ingestor.sending.build_lock import hold_build
from ingestor.state.manifest import (
    read_rows,
    root_folder,
    unusable_state,
    version_folder_name,
    version_keys,
)
from ingestor.stopping import unless

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ingestor.report import IngestReport
    from ingestor.rounds import Rounds, Shop
    from ingestor.sending.build_lock import BuildLock
    from ingestor.sending.collection_client import Exam, Verification
    from ingestor.sending.index_client import IndexTarget
    from ingestor.state.state_folder import StateFolder

logger = logging.getLogger(__name__)

# Of the roots that a build leaves out.
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What becomes of a version once it is built.

    Attributes:
        activate: queries see it if it passes its verification.
        force: they see it also if it does not; its record says who asked for that.
        exam: golden queries that belong to the verification.
    """

    activate: bool = False
    force: bool = False
    exam: Exam | None = None


async def rebuild(
    shop: Shop, rounds: Rounds, collection: str, plan: Rebuild, stop: asyncio.Event
) -> IngestReport:
    """Build the next version from the roots alone.

    Args:
        shop: what jobs need.
        rounds: over the roots; not yet used.
        collection: of which a version is built.
        plan: what becomes of it.
        stop: once set, files in hand are the last, and the version fails.

    Raises:
        CalledOffError: it was stopped while no file was in hand.
        Contended: another builds; at once.
        FailedPrecondition: it is to be activated without force, and roots of the active version
            are not among those that are built.
        SluiceError: as ``Rounds.build``.
    """
    async with AsyncExitStack() as stack:
        held: BuildLock | None = None

        async def begin() -> BuildLock:
            nonlocal held
            if plan.activate and not plan.force:
                await _check_roots(shop, rounds)
            holding = hold_build(
                *(shop.collections, shop.tenant, collection),
                builder=requester(),
                ttl_s=shop.settings.build_ttl_s,
                progress=lambda: rounds.progress,
            )
            held = await stack.enter_async_context(holding)
            return held

        await stack.enter_async_context(rounds)
        report = await rounds.build(begin)
        assert held is not None  # noqa: S101 — nothing is built before it was begun
        if report.is_stopped:
            return report
        expected = sum(summary.documents for summary in report.roots)
        verifying = shop.collections.verify(held.begun, expected, plan.exam)
        verified = await unless(stop, held.guard(verifying))
        if plan.activate:
            empty = tuple(_empty(report, allow_empty=shop.settings.allow_empty))
            verified = replace(verified, findings=(*verified.findings, *empty))
        report = await _activated(shop, held, report, verified, plan)
        await _forget_versions(shop, report.target, rounds.root_uris)
        return report


async def _check_roots(shop: Shop, rounds: Rounds) -> None:
    """Refuse to swap in a version that lacks what other roots brought into the active one.

    Only the manifests of this machine's state are known.
    """
    active = rounds.active
    assert active is not None  # noqa: S101 — asked for before a build begins
    built = rounds.root_uris

    def left_out() -> list[str]:
        keys = version_keys(shop.state, active.tenant, active.collection, active.version)
        return sorted(
            key.root_uri
            for key in keys
            if key.index_created_at == active.created_at
            and not any(
                key.root_uri == root or (root.endswith("/") and key.root_uri.startswith(root))
                for root in built
            )
            and _holds_documents(key.folder(shop.state))
        )

    try:
        missing = await asyncio.get_running_loop().run_in_executor(shop.keepers, left_out)
    except OSError as error:
        raise unusable_state(error) from None
    if missing:
        more = f" and {len(missing) - _MOST_NAMED:,} more" if len(missing) > _MOST_NAMED else ""
        raise FailedPrecondition(
            f"version {active.version} of {active.collection}, the active one, was also ingested "
            f"from {', '.join(missing[:_MOST_NAMED])}{more}: name these roots too, or say --force "
            "to let the new version answer without them"
        )


def _holds_documents(manifest: StateFolder) -> bool:
    try:
        return any(rows.documents(0, len(rows)) for rows in read_rows(manifest))
    except FileNotFoundError:  # a job is merging it
        return True


def _empty(report: IngestReport, *, allow_empty: bool) -> Iterator[str]:
    """Why queries do not get to see a version that lacks whole roots."""
    if not any(summary.documents for summary in report.roots):
        yield "it holds no documents, so queries do not get to see it"
    elif not allow_empty:
        for summary in report.roots:
            if not summary.documents:
                yield (
                    f"{summary.root_uri} brought no document, as a mount that is gone would; if "
                    "that is right, say --allow-empty"
                )


async def _activated(
    shop: Shop, lock: BuildLock, report: IngestReport, verified: Verification, plan: Rebuild
) -> IngestReport:
    """Let queries see what was verified, where that is asked for and may be."""
    findings = verified.findings
    is_forced = plan.activate and plan.force and bool(findings)
    is_activated = plan.activate and (is_forced or not findings)
    if is_activated:
        activating = shop.collections.activate(
            lock.begun, requested_by=requester(), force=is_forced
        )
        await lock.guard(activating)
    return replace(
        report,
        is_activated=is_activated,
        is_forced=is_forced,
        findings=findings,
        golden=verified.golden,
        misses=verified.misses,
    )


async def _forget_versions(shop: Shop, target: IndexTarget, roots: Sequence[str]) -> None:
    """Delete the manifests of versions that are kept no longer, where it can be done.

    Under the build lock: nobody begins a version meanwhile.
    """

    def forget(names: frozenset[str]) -> None:
        for root_uri in roots:
            root = root_folder(shop.state, target.tenant, target.collection, root_uri)
            for name in root.names():
                if name not in names:
                    root.folder(name).delete_all()

    try:
        kept = await shop.collections.kept_versions(target.tenant, target.collection)
        names = frozenset(version_folder_name(version) for version in kept)
        await asyncio.get_running_loop().run_in_executor(shop.keepers, forget, names)
    except SluiceError as error:
        logger.warning("manifests of versions of before were not deleted: %s", error.message)
    except OSError as error:
        logger.warning("manifests of versions of before were not deleted: %s", error.strerror)
