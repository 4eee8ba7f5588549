"""The stream over several indexers: shares, failover, return, windows; over real gRPC servers."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from common.connection import ConnectionSettings
from common.coordination import CoordinatorSettings, IndexRegistry, open_coordinator
from common.errors import FailedPrecondition, Unavailable
from common.rpc import GrpcServer, ServerSettings, ServiceBinding
from ingestor.sending.index_client import IndexClient, IndexTarget
from ingestor.sending.indexers import SERVICE, Indexers
from ingestor.sending.rendezvous import owner
from ingestor.settings import StreamSettings
from sluice.index.v1 import index_pb2, index_pb2_grpc
from tests.integration.ingestor.conftest import IndexServicer, Recorder
from tests.integration.ingestor.test_stream import document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from pathlib import Path

    from common.coordination import Coordinator
    from ingestor.sending.stream import IndexStream
    from sluice.document.v1 import document_pb2

TARGET = IndexTarget("default", "docs", 1, "2026-01-01T00:00:00Z")
QUICK = {"first_delay_s": 0.01, "max_delay_s": 0.05, "linger_s": 0.01}


class Node(IndexServicer):
    """One indexer: records what it gets, and acknowledges as fast, and as many, as it is told."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        super().__init__(self.recorder)
        self.address = ""
        self.pause_s = 0.0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._server = AsyncExitStack()
        self._registration = AsyncExitStack()

    async def start(self) -> None:
        binding = ServiceBinding(
            "sluice.index.v1.IndexService",
            lambda server: index_pb2_grpc.add_IndexServiceServicer_to_server(self, server),
        )
        settings = ServerSettings(listen=self.address or "127.0.0.1:0", drain_s=0)
        server = await self._server.enter_async_context(GrpcServer.open(settings, [binding]))
        self.address = server.address

    async def stop(self) -> None:
        await self._server.aclose()

    async def register(self, coordinator: Coordinator) -> None:
        registration = IndexRegistry(coordinator).register(SERVICE, self.address, ttl_s=60)
        await self._registration.enter_async_context(registration)

    async def deregister(self) -> None:
        await self._registration.aclose()

    async def aclose(self) -> None:
        await self.deregister()
        await self.stop()

    async def IndexDocuments(self, request_iterator, context):  # noqa: N802 — the stub's name
        async for response in super().IndexDocuments(request_iterator, context):
            if response.HasField("acknowledgements"):
                await asyncio.sleep(self.pause_s)
                await self.may_answer.wait()
            yield response

    def got(self) -> set[str]:
        return set(self.recorder.sent)


class Fleet:
    """Indexers, the coordinator that knows them, and streams to them."""

    def __init__(self, coordinator: Coordinator, stack: AsyncExitStack) -> None:
        self._coordinator = coordinator
        self._stack = stack
        self.nodes: list[Node] = []

    async def add(self) -> Node:
        node = Node()
        self._stack.push_async_callback(node.aclose)
        await node.start()
        await node.register(self._coordinator)
        self.nodes.append(node)
        return node

    def owner(self, message) -> Node:
        address = owner(message.document_id, [node.address for node in self.nodes])
        return next(node for node in self.nodes if node.address == address)

    @asynccontextmanager
    async def stream(self, **settings) -> AsyncIterator[Sending]:
        # A target where nobody answers: those announced are used instead.
        client = ConnectionSettings(target="127.0.0.1:1")
        async with Indexers.open(client, self._coordinator) as indexers, asyncio.timeout(60):
            sending = Sending(indexers, StreamSettings(**(QUICK | settings)))
            try:
                yield sending
            finally:
                await sending.cancel()


class Sending:
    """A stream that runs, and the receipts that came."""

    def __init__(self, indexers: Indexers, settings: StreamSettings) -> None:
        client = IndexClient(indexers, TARGET, settings, timeout_s=10)
        self.receipts: dict[str, index_pb2.Outcome.ValueType] = {}
        self.stream: IndexStream[str] = client.stream("job", self._on_receipt)
        self.running = asyncio.create_task(self.stream.run())

    async def submit(self, messages: Iterable[document_pb2.Document]) -> None:
        for message in messages:
            await self.stream.submit(message, f"{message.source_uri}@{message.version}")

    async def finish(self) -> None:
        self.stream.close()
        await self.running

    async def cancel(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition while the stream runs."""
        while not condition():
            if self.running.done():
                await self.running
            await asyncio.sleep(0.005)  # the servers keep lists, not events

    def _on_receipt(self, name: str, receipt) -> None:
        assert name not in self.receipts, "a second receipt"
        self.receipts[name] = receipt.outcome


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        path = tmp_path / "coordinator.db"
        coordinator = open_coordinator(CoordinatorSettings(kind="embedded", path=path))
        stack.push_async_callback(coordinator.aclose)
        yield Fleet(coordinator, stack)


async def test_each_document_goes_to_its_owner_in_every_job(fleet):
    for _ in range(3):
        await fleet.add()
    messages = [document(number) for number in range(300)]
    for _ in range(2):
        async with fleet.stream() as sending:
            await sending.submit(messages)
            await sending.finish()
        assert len(sending.receipts) == 300
        assert sending.stream.connections == 3
    for node in fleet.nodes:
        mine = [message.source_uri for message in messages if fleet.owner(message) is node]
        assert sorted(node.recorder.sent) == sorted(2 * mine)
        assert len(mine) > 50


async def test_one_that_dies_loses_nothing_and_takes_its_share_again(fleet):
    first, second = await fleet.add(), await fleet.add()
    messages = [document(number) for number in range(400)]
    first.recorder.silent = True
    async with fleet.stream() as sending:
        await sending.submit(messages[:200])
        await sending.until(lambda: bool(first.recorder.batches))
        await first.stop()
        await sending.until(lambda: len(sending.receipts) == 200)
        assert second.got() == {message.source_uri for message in messages[:200]}
        await asyncio.wait([sending.running], timeout=0.2)  # now it waits for something to send
        first.recorder.silent = False
        await first.start()
        second.may_answer.clear()
        await sending.submit(messages[200:201])  # it is tried again while there is work
        await sending.until(lambda: sending.stream._lanes[first.address].is_up)
        second.may_answer.set()
        await sending.submit(messages[201:])
        await sending.finish()
    assert len(sending.receipts) == 400
    late = messages[201:]
    assert first.got() == {message.source_uri for message in late if fleet.owner(message) is first}
    assert len(second.recorder.sent) == len(second.got())


async def test_what_was_acknowledged_before_it_died_is_not_sent_again(fleet):
    first, second = await fleet.add(), await fleet.add()
    messages = [document(number) for number in range(100)]
    first.recorder.failures = [(20, Unavailable("going away"))]
    async with fleet.stream() as sending:
        await sending.submit(messages)
        await sending.finish()
    assert len(sending.receipts) == 100
    # Taken, and the acknowledgement lost with the connection: only those may be sent again.
    twice = first.got() & second.got()
    assert 1 <= len(twice) <= 20
    assert len(first.recorder.sent) + len(second.recorder.sent) <= 100 + 20


async def test_all_down_waits_for_the_first_that_comes_back(fleet):
    first, second = await fleet.add(), await fleet.add()
    await first.stop()
    await second.stop()
    messages = [document(number) for number in range(50)]
    async with fleet.stream(max_attempts=1000) as sending:
        await sending.submit(messages)
        await asyncio.wait([sending.running], timeout=0.2)
        assert not sending.running.done()
        await second.start()
        await sending.finish()
    assert len(sending.receipts) == 50
    assert second.got() == {message.source_uri for message in messages}


async def test_all_down_for_good_ends_the_stream(fleet):
    for _ in range(2):
        await (await fleet.add()).stop()
    async with fleet.stream(max_attempts=4) as sending:
        await sending.submit([document(0)])
        with pytest.raises(Unavailable, match="each of the 2 indexers answered none of"):
            await sending.finish()


async def test_one_down_for_good_does_not_end_it(fleet):
    first, second = await fleet.add(), await fleet.add()
    await first.stop()
    second.pause_s = 0.005
    async with fleet.stream(max_attempts=2) as sending:
        await sending.submit(document(number) for number in range(100))
        await sending.finish()
    assert len(sending.receipts) == 100
    assert len(second.recorder.sent) == 100


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address from which nothing comes back, as of a machine that is gone."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):  # nobody accepts these; what comes after them is not even answered
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(listening.getsockname())
        yield f"127.0.0.1:{listening.getsockname()[1]}"


async def test_one_announced_but_gone_delays_nobody_for_long(fleet, nowhere):
    there = await fleet.add()
    registry = IndexRegistry(fleet._coordinator)
    async with registry.register(SERVICE, nowhere, ttl_s=60), fleet.stream() as sending:
        addresses = [there.address, nowhere]
        messages = [document(number) for number in range(200)]
        mine = {m.source_uri for m in messages if owner(m.document_id, addresses) == there.address}
        await sending.submit(messages)
        await sending.until(lambda: there.got() >= mine)
        assert there.got() == mine, "the others wait to see whether it answers"
        async with asyncio.timeout(10):  # far less than stream.open_timeout_s
            await sending.finish()
    assert len(sending.receipts) == 200
    assert len(there.recorder.sent) == 200


async def test_what_waiting_cannot_cure_ends_it_whoever_says_it(fleet):
    first, _ = await fleet.add(), await fleet.add()
    first.recorder.failures = [(0, FailedPrecondition("another embedder"))]
    async with fleet.stream() as sending:
        await sending.submit(document(number) for number in range(100))
        with pytest.raises(FailedPrecondition, match="another embedder"):
            await sending.finish()


async def test_one_that_comes_takes_its_share(fleet):
    first = await fleet.add()
    first.may_answer.clear()
    messages = [document(number) for number in range(200)]
    async with fleet.stream() as sending:
        await sending.submit(messages[:100])
        await sending.until(lambda: bool(first.recorder.batches))
        second = await fleet.add()
        await sending.until(lambda: len(sending.stream.under_way) == 2)
        await sending.submit(messages[100:])
        await sending.until(lambda: bool(second.recorder.sent))
        first.may_answer.set()
        await sending.finish()
    assert len(sending.receipts) == 200
    assert {m.source_uri for m in messages[100:] if fleet.owner(m) is second} <= second.got()
    assert all(fleet.owner(m) is second for m in messages if m.source_uri in second.got())
    assert not first.got() & second.got()


async def test_one_that_leaves_in_order_answers_for_what_it_has(fleet):
    first, second = await fleet.add(), await fleet.add()
    first.may_answer.clear()
    messages = [document(number) for number in range(200)]
    async with fleet.stream() as sending:
        await sending.submit(messages[:100])
        await sending.until(lambda: bool(first.recorder.sent))
        await first.deregister()
        await sending.until(lambda: not sending.stream._lanes[second.address].is_leaving)
        await sending.until(lambda: sending.stream._lanes[first.address].is_leaving)
        had = sending.stream.under_way[first.address]
        await sending.submit(messages[100:])
        first.may_answer.set()
        await sending.until(lambda: first.address not in sending.stream.under_way)
        await sending.finish()
    assert len(sending.receipts) == 200
    assert len(first.recorder.sent) == had > 0
    assert not first.got() & second.got()
    assert sending.stream.connections == 2


async def test_the_target_of_the_settings_serves_until_one_is_announced(fleet):
    alone = Node()
    await alone.start()
    try:
        client = ConnectionSettings(target=alone.address)
        async with Indexers.open(client, fleet._coordinator) as indexers, asyncio.timeout(20):
            assert await indexers.addresses() == (alone.address,)
            announced = await fleet.add()
            assert await indexers.changed((alone.address,)) == (announced.address,)
            await announced.deregister()
            second = await fleet.add()
            # Never none: the last known one stays until there is another.
            assert await indexers.changed((announced.address,)) == (second.address,)
    finally:
        await alone.stop()


async def test_the_states_of_a_document_keep_their_order_when_its_indexer_dies(fleet):
    first, second = await fleet.add(), await fleet.add()
    uris = [document(number) for number in range(40)]
    mine = [message for message in uris if fleet.owner(message) is first]
    first.recorder.silent = True
    order: list[tuple[str, int]] = []
    for node in fleet.nodes:
        inner = node.recorder.acknowledge

        def acknowledge(message, version, inner=inner):
            order.append((message.source_uri, message.version))
            return inner(message, version)

        node.recorder.acknowledge = acknowledge
    async with fleet.stream() as sending:
        await sending.submit(mine)
        await sending.until(lambda: bool(first.recorder.batches))

        async def later(message) -> None:
            for version in (2, 3):
                state = type(message)()
                state.CopyFrom(message)
                state.version, state.content_digest = version, f"state {version}"
                await sending.submit([state])

        states = [asyncio.create_task(later(message)) for message in mine]
        await first.stop()
        await asyncio.gather(*states)
        await sending.finish()
    for message in mine:
        assert [version for uri, version in order if uri == message.source_uri] == [1, 2, 3]
    assert set(sending.receipts.values()) == {index_pb2.OUTCOME_INDEXED}
    assert len(sending.receipts) == 3 * len(mine)
    assert {document.version for document in second.recorder.documents.values()} == {3}


async def test_a_slow_one_has_little_under_way_and_a_fast_one_much(fleet):
    slow, fast = await fleet.add(), await fleet.add()
    slow.pause_s, fast.pause_s = 1 / 50, 1 / 5000
    messages = [document(number, 1000) for number in range(8_000)]
    of_fast = [message for message in messages if fleet.owner(message) is fast]
    of_slow = [message for message in messages if fleet.owner(message) is slow]
    most: dict[str, int] = {}

    async with fleet.stream(target_s=1.0) as sending:

        def is_fast_done() -> bool:
            for address, count in sending.stream.under_way.items():
                most[address] = max(most.get(address, 0), count)
            return len(fast.recorder.sent) == len(of_fast)

        submitting = asyncio.create_task(sending.submit([*of_slow[:800], *of_fast]))
        await sending.until(is_fast_done)
        await submitting
        window = sending.stream.under_way[slow.address]
        answered = len(slow.recorder.sent)
    # About a second's worth; and the fast one was not held up by hundreds that wait for the slow.
    assert 25 <= window <= 100
    assert most[fast.address] > 4 * most[slow.address]
    assert answered < 700
