"""The stream client against a real server that reorders, rejects, dies and comes back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from common.connection import ConnectionSettings
from common.errors import FailedPrecondition, NotFound, Overloaded, Unavailable
from common.identity import document_id
from ingestor.sending.index_client import IndexClient, IndexTarget
from ingestor.sending.indexers import Indexers
from ingestor.settings import StreamSettings
from sluice.document.v1 import document_pb2
from sluice.index.v1 import index_pb2

if TYPE_CHECKING:
    from ingestor.sending.stream import IndexStream

TARGET = IndexTarget("default", "docs", 1, "2026-01-01T00:00:00Z")


def document(number: int, size: int = 10) -> document_pb2.Document:
    uri = f"file:///d/{number}.txt"
    return document_pb2.Document(
        document_id=document_id(uri),
        source_uri=uri,
        version=1,
        content=f"{number}:".ljust(size, "x"),
        content_digest=str(number),
    )


async def send(address: str, documents: list[document_pb2.Document], **settings):
    """Send everything; receipts by document number, and the stream."""
    receipts = {}
    chosen = {"first_delay_s": 0.01, "max_delay_s": 0.05, "linger_s": 0.01} | settings
    async with Indexers.open(ConnectionSettings(target=address), None) as indexers:
        client = IndexClient(indexers, TARGET, StreamSettings(**chosen), timeout_s=10)

        def on_receipt(number, receipt):
            assert number not in receipts, "a second receipt"
            receipts[number] = receipt

        stream = client.stream("job", on_receipt)
        async with asyncio.timeout(30):
            running = asyncio.create_task(stream.run())
            try:
                for number, message in enumerate(documents):
                    submitting = asyncio.create_task(stream.submit(message, number))
                    await asyncio.wait({running, submitting}, return_when=asyncio.FIRST_COMPLETED)
                    if running.done():
                        submitting.cancel()
                        break
                stream.close()
                await running
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
    return receipts, stream


async def test_every_document_has_one_receipt_whatever_the_order(serve, recorder):
    recorder.reverse = True
    address, _ = await serve()
    receipts, stream = await send(address, [document(number) for number in range(100)])
    assert sorted(receipts) == list(range(100))
    assert all(receipt.outcome == index_pb2.OUTCOME_INDEXED for receipt in receipts.values())
    assert len(recorder.sent) == 100
    assert stream.connections == 1
    assert len(recorder.batches) < 50


async def test_a_stream_that_dies_resumes_with_what_was_not_acknowledged(serve, recorder):
    recorder.failures = [
        (7, Unavailable("restarting")),
        (0, Overloaded("busy", retry_after_ms=20)),
        (5, None),
        (9, Overloaded("busy", retry_after_ms=20)),
    ]
    address, _ = await serve()
    receipts, stream = await send(address, [document(number) for number in range(60)])
    assert sorted(receipts) == list(range(60))
    assert len(recorder.documents) == 60
    assert len(recorder.openings) == 5
    assert stream.connections == 4
    # Sent twice is at most what a connection had taken before it broke: how many of the last
    # acknowledgements still arrive is up to the network.
    assert len(recorder.sent) <= 60 + 7 + 5 + 9


async def test_a_server_that_restarts_is_found_again(serve, recorder):
    address, stop = await serve()
    recorder.silent = True
    sending = asyncio.create_task(
        send(address, [document(number) for number in range(20)], max_attempts=100)
    )
    async with asyncio.timeout(10):
        while not recorder.batches:  # noqa: ASYNC110 — the service keeps lists, not events
            await asyncio.sleep(0.01)
        await stop()
        recorder.silent = False
        await serve(address)
        receipts, _ = await sending
    assert sorted(receipts) == list(range(20))


async def test_what_waiting_cannot_cure_ends_the_stream(serve, recorder):
    recorder.failures = [(0, NotFound("no such version"))]
    address, _ = await serve()
    with pytest.raises(NotFound, match="no such version"):
        await send(address, [document(0)])
    assert len(recorder.openings) == 1


async def test_attempts_are_bounded(serve, recorder):
    recorder.failures = [(0, Unavailable("down"))] * 50
    address, _ = await serve()
    with pytest.raises(Unavailable, match="none of 4 attempts"):
        await send(address, [document(0)], max_attempts=4)
    assert len(recorder.openings) == 4


async def test_the_document_that_breaks_every_stream_is_named(serve, recorder):
    recorder.limits.max_batch_documents = 1
    recorder.failures = [(1, Unavailable("crashed"))] * 4
    address, _ = await serve()
    documents = [document(number) for number in range(5)]
    with pytest.raises(Unavailable, match=r"d/0\.txt was under way when 4 streams broke"):
        await send(address, documents, max_attempts=4)
    recorder.failures = [(1, Unavailable("crashed"))] * 2
    with pytest.raises(Unavailable, match=r"goes on where it stopped$"):
        await send(address, documents, max_attempts=2)


async def test_attempts_are_counted_anew_after_each_receipt(serve, recorder):
    recorder.limits.max_batch_documents = 1
    recorder.failures = [(3, None), (0, Unavailable("down"))] * 10
    address, _ = await serve()
    receipts, _ = await send(address, [document(number) for number in range(40)], max_attempts=3)
    assert len(receipts) == 40
    assert recorder.failures == []


async def test_a_silent_server_is_given_up(serve, recorder):
    recorder.silent = True
    address, _ = await serve()
    with pytest.raises(Unavailable, match=r"no acknowledgement came for 0\.1 s"):
        await send(address, [document(0)], acknowledgement_timeout_s=0.1, max_attempts=2)
    assert len(recorder.openings) == 2


async def test_rejections_are_receipts(serve, recorder):
    recorder.rejections["1.txt"] = index_pb2.REJECTION_CAUSE_INVALID_METADATA
    address, _ = await serve()
    receipts, _ = await send(address, [document(number) for number in range(3)])
    assert receipts[1].fault.cause == "invalid_metadata"
    assert receipts[1].fault.message == "refused"
    assert receipts[0].fault is None


async def test_a_rejection_for_a_cause_of_a_newer_release_is_a_receipt(serve, recorder):
    recorder.rejections["1.txt"] = 4711
    address, _ = await serve()
    receipts, _ = await send(address, [document(number) for number in range(3)])
    assert receipts[1].fault.cause == "unspecified"
    assert receipts[1].fault.message == "refused"
    assert sorted(receipts) == [0, 1, 2]


@pytest.mark.parametrize("outcome", [index_pb2.OUTCOME_UNSPECIFIED, 99])
async def test_an_outcome_of_a_newer_release_is_no_success(serve, recorder, outcome):
    right = recorder.acknowledge

    def acknowledge(message, version):
        answer = right(message, version)
        answer.outcome = outcome
        return answer

    recorder.acknowledge = acknowledge
    address, _ = await serve()
    receipts, _ = await send(address, [document(0)])
    assert receipts[0].outcome == index_pb2.OUTCOME_REJECTED
    assert receipts[0].fault.cause == "unspecified"
    assert "same release" in receipts[0].fault.message


@pytest.mark.parametrize("wrong", ["document_id", "version"])
async def test_an_acknowledgement_of_something_else_is_none(serve, recorder, wrong):
    right = recorder.acknowledge

    def acknowledge(message, version):
        answer = right(message, version)
        if message.source_uri.endswith("/1.txt") and len(recorder.openings) == 1:
            setattr(answer, wrong, {"document_id": "f" * 32, "version": 7}[wrong])
        return answer

    recorder.acknowledge = acknowledge
    address, _ = await serve()
    receipts, stream = await send(
        address, [document(number) for number in range(3)], acknowledgement_timeout_s=0.3
    )
    assert [receipts[n].outcome for n in range(3)][::2] == [index_pb2.OUTCOME_INDEXED] * 2
    assert receipts[1].outcome == index_pb2.OUTCOME_UNCHANGED, "sent again and held already"
    assert stream.connections == 2


async def test_limits_of_the_server_cut_batches_and_reject_what_exceeds_them(serve, recorder):
    recorder.limits.max_batch_documents = 3
    recorder.limits.max_batch_bytes = 1000
    recorder.limits.max_document_bytes = 500
    address, _ = await serve()
    documents = [document(0, 500), document(1, 501), document(2, 2000), document(3, 400)]
    receipts, _ = await send(address, documents + [document(number) for number in range(4, 14)])
    assert receipts[1].fault.cause == receipts[2].fault.cause == "content_too_large"
    assert all(receipts[n].fault is None for n in (0, *range(3, 14)))
    assert max(recorder.batches) <= 3


async def test_batches_are_cut_by_bytes_and_a_larger_document_goes_alone(serve, recorder):
    address, _ = await serve()
    documents = [document(0, 100), document(1, 5000), *(document(n, 400) for n in range(2, 12))]
    receipts, _ = await send(address, documents, batch_bytes=1200, linger_s=0.1)
    assert all(receipt.fault is None for receipt in receipts.values())
    assert recorder.batches[:2] == [1, 1]
    assert max(recorder.batches[2:]) == 2


async def test_the_window_bounds_what_is_unacknowledged(serve, recorder):
    recorder.silent = True
    address, _ = await serve()
    async with Indexers.open(ConnectionSettings(target=address), None) as indexers:
        settings = StreamSettings(max_unacknowledged_documents=5, linger_s=0)
        client = IndexClient(indexers, TARGET, settings, timeout_s=10)
        stream: IndexStream[int] = client.stream("job", lambda *_: None)
        running = asyncio.create_task(stream.run())
        for number in range(5):
            await stream.submit(document(number), number)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.submit(document(5), 5), 0.3)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_nothing_to_send_opens_nothing(serve, recorder):
    address, _ = await serve()
    receipts, stream = await send(address, [])
    assert receipts == {}
    assert stream.connections == 0
    assert recorder.openings == []


async def test_an_error_in_mid_stream_is_told_or_found_on_opening_again(serve, recorder):
    refusal = FailedPrecondition("takes no writes")
    recorder.limits.max_batch_documents = 1
    recorder.failures = [(3, refusal), (0, refusal)]
    address, _ = await serve()
    with pytest.raises(FailedPrecondition, match="takes no writes"):
        await send(address, [document(number) for number in range(50)])
