"""Pins: who reads or writes a version right now, so that its store is not deleted under them.

A process keeps all its pins under one lease and renews it in the background; where the lease was
lost it puts them again under a new one. A pin to read never fails: while the coordinator is away it
is put later. A pin to write stands before the writing begins, and is refused during maintenance of
the collection, which in turn is refused while one stands. Nothing here deletes what others pinned.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from common.coordination import keys
from common.coordination.coordinator import (
    MAX_OPERATIONS,
    RETRY_AFTER_MS,
    Condition,
    Delete,
    Operation,
    Put,
)
from common.coordination.lock import HeldLock, contended, hold
from common.errors import (
    Contended,
    CoordinatorUnavailable,
    FailedPrecondition,
    NotFound,
    SluiceError,
    Unavailable,
)
from common.identity import DEFAULT_TENANT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from common.coordination.coordinator import Coordinator, Entry, Lease

_log = logging.getLogger(__name__)

_READ, _WRITE = "read", "write"
# Of the time to live: when the lease is renewed, when it is in doubt, when a failure is mended.
_RENEW_AFTER = 1 / 3
_DOUBT_AFTER = 0.8
_RETRY_AFTER = 1 / 15
# Maintenance may begin and end between our try and our look at who holds it.
_MAX_TRIES = 3
# How long a caller who pins to read waits for the coordinator.
_PATIENCE_S = 1.0
# How long one who pins to write does, those before it in the queue included.
_WRITERS_PATIENCE_S = 10.0
# Most writers that a refusal names.
_NAMED = 8


class Pin(NamedTuple):
    """Who keeps a version from being deleted; ``use`` is read or write, ``since`` an ISO time."""

    holder: str
    use: str
    since: str


class _Place(NamedTuple):
    """What this process pins."""

    tenant: str
    collection: str
    number: int
    use: str


class Pins:
    """The pins of this process; open with `Pins.open`."""

    def __init__(self, coordinator: Coordinator, holder: str, ttl_s: int) -> None:
        self._coordinator = coordinator
        self._holder = holder
        self._ttl_s = ttl_s
        self._id = uuid.uuid4().hex
        self._counts: Counter[_Place] = Counter()
        self._since: dict[_Place, str] = {}
        # Keys under the lease: whether they certainly stand, or may, for the answer got lost.
        self._put: dict[_Place, bool] = {}
        self._lease: Lease | None = None
        self._lease_ttl_s = ttl_s
        self._renewed_s = 0.0
        self._turn = asyncio.Lock()
        self._failed = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, coordinator: Coordinator, holder: str, *, ttl_s: int
    ) -> AsyncIterator[Pins]:
        """Pins while the context is open; nothing is asked of the coordinator before the first.

        Args:
            coordinator: where they are put.
            holder: who pins, told to those who wait: service, host, address.
            ttl_s: how long they outlive a process that dies, in seconds; renewed every third of it.
        """
        pins = cls(coordinator, holder, ttl_s)
        keeping = asyncio.create_task(pins._keep(), name="pins")
        try:
            yield pins
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            if pins._lease is not None:
                with contextlib.suppress(CoordinatorUnavailable):
                    await pins._lease.revoke()

    async def read(self, tenant: str, collection: str, number: int) -> None:
        """Pin a version that is read; let go of it as often as it was pinned.

        It never fails: while the coordinator does not answer the pin is put later.
        """
        place = self._place(tenant, collection, number, _READ)
        self._count(place)
        await self._settle_soon()

    async def let_go(self, tenant: str, collection: str, number: int) -> None:
        """Take back a pin of `read`; with the last one it goes. It never fails."""
        self._discount(self._place(tenant, collection, number, _READ))
        await self._settle_soon()

    @contextlib.asynccontextmanager
    async def writing(
        self, tenant: str, collection: str, number: int
    ) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Pin a version that is written while the context is open.

        Yields:
            What raises Unavailable if the pin did not stand all the time: the version may have been
            repaired or deleted meanwhile, so nothing that was written may be acknowledged.

        Raises:
            Contended: on entering, while a version of the collection is being repaired.
            CoordinatorUnavailable: on entering only.
        """
        place = self._place(tenant, collection, number, _WRITE)
        self._count(place)
        try:
            await self._make_sure(place)
            yield partial(self._check_unbroken, place, self._lease)
        finally:
            self._discount(place)
            await self._settle_soon()

    def _place(self, tenant: str, collection: str, number: int, use: str) -> _Place:
        keys.pins_prefix(tenant, collection, number)  # refuses what is no name
        return _Place(tenant or DEFAULT_TENANT, collection, number, use)

    def _count(self, place: _Place) -> None:
        self._counts[place] += 1
        self._since.setdefault(place, datetime.now(UTC).isoformat(timespec="seconds"))

    def _discount(self, place: _Place) -> None:
        self._counts[place] -= 1
        if self._counts[place] <= 0:
            del self._counts[place], self._since[place]

    def _key(self, place: _Place) -> str:
        return f"{keys.pins_prefix(*place[:3])}{place.use}-{self._id}"

    def _value(self, place: _Place) -> bytes:
        pin = {"use": place.use, "holder": self._holder, "since": self._since[place]}
        return json.dumps(pin).encode()

    def _missing(self, use: str) -> list[_Place]:
        return [one for one in self._counts if one.use == use and not self._put.get(one)]

    def _stands(self, place: _Place) -> bool:
        """Whether the pin is put and its lease cannot have ended, by our own clock."""
        age_s = asyncio.get_running_loop().time() - self._renewed_s
        return self._put.get(place, False) and age_s < self._lease_ttl_s * _DOUBT_AFTER

    async def _settle_soon(self) -> None:
        """Put and delete what is due; what fails or takes long is left to the background."""
        try:
            async with asyncio.timeout(_PATIENCE_S), self._turn:
                await self._settle()
        except (SluiceError, TimeoutError) as error:
            _log.warning("pins are put later", extra={"cause": type(error).__name__})
            self._failed.set()

    async def _make_sure(self, place: _Place) -> None:
        """Put a pin to write, unless it stands."""
        if self._stands(place):
            return
        try:
            async with asyncio.timeout(_WRITERS_PATIENCE_S), self._turn:
                await self._renew()
                if not self._put.get(place):
                    await self._put_to_write(place)
        except TimeoutError:
            raise CoordinatorUnavailable(
                f"version {place.number} of collection {place.collection} could not be pinned in "
                "time, so nothing may be written to it; check that etcd answers, then repeat",
                retry_after_ms=RETRY_AFTER_MS,
            ) from None

    async def _check_unbroken(self, place: _Place, lease: Lease | None) -> None:
        """Unavailable unless the pin stands by the lease it was put under: none comes back."""
        await self._make_sure(place)
        if self._lease is not lease:
            raise Unavailable(
                f"the pin on version {place.number} of collection {place.collection} was lost "
                "while it was written; write it again",
                retry_after_ms=RETRY_AFTER_MS,
            )

    async def _settle(self) -> None:
        """Delete the keys that nobody wants any more and put those to read that are missing."""
        surplus = [place for place in self._put if place not in self._counts]
        places = surplus + self._missing(_READ)
        for begin in range(0, len(places), MAX_OPERATIONS):
            await self._write(places[begin : begin + MAX_OPERATIONS], [])

    async def _put_to_write(self, place: _Place) -> None:
        """Put a pin to write; Contended while the collection is under maintenance."""
        lock = keys.maintenance_lock(place.tenant, place.collection)
        for _ in range(_MAX_TRIES):
            if await self._write([place], [Condition(lock, create_revision=0)]):
                return
            entry = await self._coordinator.get(lock)
            if entry is not None:
                held = contended(entry)
                raise Contended(
                    f"collection {place.collection} takes no writes while it is repaired; that is "
                    f"{held.message}",
                    retry_after_ms=held.retry_after_ms,
                )
        raise Contended(
            f"collection {place.collection} is repaired again and again; try later",
            retry_after_ms=1000,
        )

    async def _write(self, places: list[_Place], conditions: list[Condition]) -> bool:
        """Put those that are wanted and delete the others, if the conditions hold."""
        for _ in range(_MAX_TRIES):
            lease = await self._granted()
            wanted = {place for place in places if place in self._counts}
            operations: list[Operation] = [
                Put(self._key(place), self._value(place), lease.id)
                if place in wanted
                else Delete(self._key(place))
                for place in places
            ]
            self._put.update(dict.fromkeys(places, False))
            try:
                outcome = await self._coordinator.transact(conditions, operations)
            except NotFound:
                self._forget_lease()
                continue
            if outcome.committed:  # else they may stand from a try whose answer got lost
                for place in places:
                    if place in wanted:
                        self._put[place] = True
                    else:
                        del self._put[place]
            return outcome.committed
        raise CoordinatorUnavailable(
            "leases end as soon as they are granted; check the coordinator's clock and load",
            retry_after_ms=RETRY_AFTER_MS,
        )

    async def _granted(self) -> Lease:
        if self._lease is None:
            asked_s = asyncio.get_running_loop().time()
            self._lease = await self._coordinator.grant_lease(self._ttl_s)
            self._renewed_s, self._lease_ttl_s = asked_s, self._lease.ttl_s
        return self._lease

    async def _renew(self) -> None:
        if self._lease is None:
            return
        asked_s = asyncio.get_running_loop().time()
        if await self._lease.keep_alive():
            self._renewed_s = asked_s
        else:
            self._forget_lease()

    def _forget_lease(self) -> None:
        _log.warning("the lease of the pins was lost, putting them again")
        self._lease = None
        self._put.clear()
        self._failed.set()

    async def _keep(self) -> None:
        """Renew for ever, and put what could not be put."""
        clock = asyncio.get_running_loop().time
        next_s = clock() + self._ttl_s * _RENEW_AFTER
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_s):
                    await self._failed.wait()
                    next_s = min(next_s, clock() + self._ttl_s * _RETRY_AFTER)
                    self._failed.clear()
                    continue
            next_s = clock() + self._ttl_s * _RENEW_AFTER
            try:
                async with self._turn:
                    await self._renew()
                    await self._settle()
                    for place in self._missing(_WRITE):
                        await self._put_to_write(place)
            except SluiceError as error:
                _log.warning(
                    "pins could not be renewed, trying again",
                    extra={"cause": type(error).__name__},
                )
                self._failed.set()


async def pinned(
    coordinator: Coordinator, tenant: str, collection: str, number: int
) -> tuple[Pin, ...]:
    """Who pins a version now."""
    snapshot = await coordinator.list(keys.pins_prefix(tenant, collection, number))
    return tuple(_pin(entry) for entry in snapshot.entries)


@contextlib.asynccontextmanager
async def maintenance(
    coordinator: Coordinator, tenant: str, collection: str, *, holder: str
) -> AsyncIterator[HeldLock]:
    """Keep writers out of a collection while the context is open.

    The lock comes first and the look at the pins second, while a writer's pin is put only if the
    lock is absent: so one of the two always sees the other.

    Raises:
        FailedPrecondition: a version of it is being written; the message says by whom.
        Contended: another maintains it.
    """
    async with hold(coordinator, keys.maintenance_lock(tenant, collection), holder=holder) as lock:
        snapshot = await coordinator.list(keys.collection_pins_prefix(tenant, collection))
        writers = sorted({pin.holder for pin in map(_pin, snapshot.entries) if pin.use != _READ})
        if writers:
            more = f" and {len(writers) - _NAMED} more" if len(writers) > _NAMED else ""
            raise FailedPrecondition(
                f"collection {collection} is being written through "
                f"{', '.join(writers[:_NAMED])}{more}; let those jobs end, then repeat"
            )
        yield lock


def _pin(entry: Entry) -> Pin:
    # Another release of Sluice may have written it otherwise; it counts all the same.
    with contextlib.suppress(ValueError, KeyError, TypeError):
        value = json.loads(entry.value)
        return Pin(str(value["holder"]), str(value["use"]), str(value["since"]))
    return Pin("someone", _WRITE, "an unknown time")
