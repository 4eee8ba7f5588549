"""A version is pinned while somebody holds it, and let go once, after the last."""

from __future__ import annotations

import asyncio
import logging

import pytest

from common.embedding import EmbeddingSettings, open_embedder
from query.index_version import IndexVersion
from query.pinning import PinnedVersions

VERSION = IndexVersion(
    "default", "docs", 3, 1, open_embedder(EmbeddingSettings(kind="hashing")).spec
)


class Pins:
    """Says what was asked of it, in order; a pin is put when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, int]] = []
        self.may_put = asyncio.Event()
        self.fault: Exception | None = None
        self.came = asyncio.Event()

    async def read(self, tenant: str, collection: str, number: int) -> None:
        self.asked.append(("read", tenant, collection, number))
        await self.may_put.wait()
        if self.fault is not None:
            raise self.fault
        self.asked.append(("put", tenant, collection, number))

    async def let_go(self, tenant: str, collection: str, number: int) -> None:
        self.asked.append(("let go", tenant, collection, number))
        self.came.set()

    @property
    def steps(self) -> list[str]:
        return [step[0] for step in self.asked]


async def until_let_go(pins: Pins) -> None:
    async with asyncio.timeout(5):
        await pins.came.wait()


async def test_a_version_is_let_go_once_after_its_last_holder():
    pins = Pins()
    pins.may_put.set()
    held = PinnedVersions(pins).hold(VERSION)
    await held.pinned(5)
    with held.used() as first:
        assert first is VERSION
        with held.used():
            held.release()
        await asyncio.sleep(0)
        assert pins.steps == ["read", "put"]
    await until_let_go(pins)
    assert pins.asked == [(step, "default", "docs", 3) for step in ("read", "put", "let go")]


async def test_a_search_that_fails_holds_no_longer():
    pins = Pins()
    pins.may_put.set()
    held = PinnedVersions(pins).hold(VERSION)
    with pytest.raises(ZeroDivisionError), held.used():
        raise ZeroDivisionError
    held.release()
    await until_let_go(pins)


async def test_a_version_is_not_let_go_before_it_is_pinned():
    pins = Pins()
    held = PinnedVersions(pins).hold(VERSION)
    held.release()
    await held.pinned(0.01)
    assert pins.steps == ["read"]
    pins.may_put.set()
    await until_let_go(pins)
    assert pins.steps == ["read", "put", "let go"]


async def test_waiting_for_a_pin_ends_with_it_or_with_the_time():
    pins = Pins()
    held = PinnedVersions(pins).hold(VERSION)
    called: list[str] = []
    late, on_time = asyncio.Event(), asyncio.Event()
    held.when_pinned(0.01, late.set)
    held.when_pinned(60, on_time.set)
    held.when_pinned(60, lambda: called.append("at once"))
    assert not called
    async with asyncio.timeout(5):
        await late.wait()
        await held.pinned(0.01)
        assert not on_time.is_set()
        pins.may_put.set()
        await on_time.wait()


async def test_a_fault_of_the_pins_is_told_and_keeps_nobody_from_searching(
    caplog: pytest.LogCaptureFixture,
):
    pins = Pins()
    pins.fault = ZeroDivisionError("secret")
    pins.may_put.set()
    held = PinnedVersions(pins).hold(VERSION)
    with held.used(), caplog.at_level(logging.ERROR, "query"):
        await held.pinned(5)
        await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == ["a pin could not be kept"]
    held.release()
    await until_let_go(pins)


async def test_closing_ends_what_is_under_way():
    pins = Pins()
    pinned = PinnedVersions(pins)
    held = pinned.hold(VERSION)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await pinned.aclose()
    held.release()
    await asyncio.sleep(0)
    assert pins.steps == ["read"]
