"""The ledgers of this process, one an index version, and the one thread in which they are used.

In a folder they outlive the process and are open only while they are used; without one they are
temporary, stay open, and the least recently used of more than 64 goes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from common.errors import ConfigurationError
from indexer.word_counts.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from pathlib import Path

P = ParamSpec("P")
T = TypeVar("T")

MAX_TEMPORARY: Final = 64
_SUFFIX: Final = ".words.sqlite"


class Ledgers:
    """Opens ledgers by the name of their version's store. Use one ledger at a time.

    Args:
        folder: keeps them; None for temporary ones.
        analysis: rules by which the words are counted.

    Raises:
        ConfigurationError: the folder cannot be made.
    """

    def __init__(self, folder: Path | None, analysis: int) -> None:
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigurationError(
                    f"indexer.word_counts.folder: cannot make {folder} ({error.strerror}); name a "
                    "folder that this user may write"
                ) from error
        self.analysis: Final = analysis
        self._folder = folder
        self._in_use: Ledger | None = None  # of the folder
        self._temporary: OrderedDict[str, Ledger] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "word-counts")

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a step in the thread of the ledgers, after those begun before."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(function, *args, **kwargs))

    @asynccontextmanager
    async def opened(self, store_collection: str) -> AsyncIterator[Ledger]:
        """The ledger of a version, empty if it is new.

        Raises:
            Unavailable: it can be neither read nor made.
        """
        if self._folder is None:
            yield await self.call(self._kept, store_collection)
            return
        path = self._folder / f"{store_collection}{_SUFFIX}"
        try:
            yield await self.call(self._open, path)
        finally:
            # Not awaited, for this may be cancelled: the thread closes it after what is under way,
            # also where that is the opening.
            self._thread.submit(self._close)

    async def forget(self, store_collection: str) -> None:
        """Throw a ledger away."""
        await self.call(self._throw_away, store_collection)

    async def keep_only(self, store_collections: Collection[str]) -> None:
        """Throw away the ledgers of all other versions."""
        for name in await self.call(self._names):
            if name not in store_collections:
                await self.forget(name)

    async def aclose(self) -> None:
        """Wait for the step under way and close what is open."""
        for ledger in self._temporary.values():
            self._thread.submit(ledger.close)
        self._temporary.clear()
        await asyncio.to_thread(self._thread.shutdown)

    def _open(self, path: Path) -> Ledger:
        self._in_use = Ledger.open(path, self.analysis)
        return self._in_use

    def _close(self) -> None:
        if self._in_use is not None:
            self._in_use.close()
            self._in_use = None

    def _kept(self, name: str) -> Ledger:
        ledger = self._temporary.pop(name, None)
        if ledger is None:
            ledger = Ledger.open(None, self.analysis)
        self._temporary[name] = ledger
        while len(self._temporary) > MAX_TEMPORARY:
            self._temporary.popitem(last=False)[1].close()
        return ledger

    def _names(self) -> list[str]:
        if self._folder is None:
            return list(self._temporary)
        return [path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"*{_SUFFIX}")]

    def _throw_away(self, name: str) -> None:
        ledger = self._temporary.pop(name, None)
        if ledger is not None:
            ledger.close()
        if self._folder is not None:
            for suffix in ("", "-wal", "-shm"):
                (self._folder / f"{name}{_SUFFIX}{suffix}").unlink(missing_ok=True)
