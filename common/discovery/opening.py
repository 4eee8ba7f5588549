"""Opens what a target names: the fleet, and the coordinator where it is announced, if it is."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from common.discovery.fleet import Fleet
from common.discovery.target import Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.coordination import Coordinator, CoordinatorSettings
    from common.rpc import ChannelSettings


@asynccontextmanager
async def open_fleet(
    target: str,
    channel: ChannelSettings,
    coordinator: CoordinatorSettings | None = None,
    *,
    service: str,
    opened: Coordinator | None = None,
) -> AsyncIterator[Fleet]:
    """The servers of any target, while the context is open.

    Args:
        target: see ``Target``; other than in ``Fleet.open``, nobody else is looked for. Empty for
            those announced to ``opened``.
        channel: TLS and bounds of each connection.
        coordinator: endpoints, TLS and user of etcd, where the target is announced there; None for
            the defaults.
        service: for messages, where the target is an address.
        opened: the coordinator of these settings, if it is open already.

    Raises:
        ConfigurationError: the target is none, or a file of credentials cannot be read.
    """
    parsed = Target.parse(target)
    shared = opened if parsed.is_announced or not target else None
    async with (
        announcing(parsed, coordinator, shared) as found,
        Fleet.open(target, channel, found, service=service) as fleet,
    ):
        yield fleet


@asynccontextmanager
async def announcing(
    target: Target, settings: CoordinatorSettings | None, opened: Coordinator | None = None
) -> AsyncIterator[Coordinator | None]:
    """The coordinator where a target's servers are announced; the one that is open, if it is that.

    Args:
        target: an address needs none other than the one that is open.
        settings: of the one that is open, or would be.
        opened: stays open.
    """
    if not target.is_announced:
        yield opened
        return
    from common.coordination import (  # noqa: PLC0415  # slow to import
        CoordinatorSettings,
        open_coordinator,
    )

    settings = settings or CoordinatorSettings()
    wanted = target.coordinator(settings)
    if opened is not None and wanted == settings:
        yield opened
        return
    async with aclosing(open_coordinator(wanted)) as own:
        yield own
