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

from common.errors import SluiceError
from common.requester import requester
from ingestor.sending.build_lock import hold_build
from ingestor.state.manifest import root_folder, version_folder_name
from ingestor.stopping import unless

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingestor.report import IngestReport
    from ingestor.rounds import Rounds, Shop
    from ingestor.sending.build_lock import BuildLock
    from ingestor.sending.collection_client import Exam, Verification
    from ingestor.sending.index_client import IndexTarget

logger = logging.getLogger(__name__)


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
        SluiceError: as ``Rounds.build``.
    """
    async with AsyncExitStack() as stack:
        held: BuildLock | None = None

        async def begin() -> BuildLock:
            nonlocal held
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
        if plan.activate and not expected:
            empty = "it holds no documents, so queries do not get to see it"
            verified = replace(verified, findings=(*verified.findings, empty))
        report = await _activated(shop, held, report, verified, plan)
        await _forget_versions(shop, report.target, rounds.root_uris)
        return report


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
