"""Rounds until they are stopped, through outages of the storage and of the indexers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from common.discovery import delay_s, is_passing
from common.errors import Contended, FailedPrecondition, NotFound, SluiceError
from ingestor.stopping import CalledOffError, pause

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ingestor.report import IngestReport
    from ingestor.rounds import Rounds
    from ingestor.settings import StreamSettings

logger = logging.getLogger(__name__)


async def watch(
    rounds: Rounds,
    settings: StreamSettings,
    *,
    every_s: float,
    told: Callable[[IngestReport], None],
    stop: asyncio.Event,
) -> None:
    """Repeat the rounds until they are stopped.

    Args:
        rounds: what is repeated.
        settings: delays after a round that failed.
        every_s: pause between two rounds.
        told: is called with what each round did.
        stop: ends it.

    Raises:
        SluiceError: what does not pass by waiting. After a first round that went well, a root that
            is not there counts as passing, since mounts come back.
    """
    done = failures = 0
    while not stop.is_set():
        pause_s = every_s
        try:
            report = await rounds.run()
        except CalledOffError:
            return
        except SluiceError as error:
            if rounds.is_lock_lost or not _may_pass(error, is_first=not done):
                raise
            failures += 1
            pause_s = max(every_s, delay_s(settings, failures, error))
            logger.warning(
                "a round failed; the next one follows: %s",
                error.message,
                extra={"error_code": error.code.name},
            )
        else:
            done, failures = done + 1, 0
            told(report)
        await pause(stop, pause_s)


def _may_pass(error: SluiceError, *, is_first: bool) -> bool:
    if is_first:
        return is_passing(error) and not isinstance(error, Contended)
    return is_passing(error) or isinstance(error, FailedPrecondition | NotFound)
