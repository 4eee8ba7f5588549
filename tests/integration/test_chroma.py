import asyncio
import threading

import numpy as np
import pytest

from common.chroma import ChromaSettings, open_chroma
from common.config import Settings, load
from common.errors import ConfigurationError, InvalidArgument, NotFound, Unavailable
from tests.integration.chroma_server import chroma_server

NAME = "default.docs.v000001"


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    with chroma_server(tmp_path_factory.mktemp("chroma")) as port:
        yield port


@pytest.fixture(params=["embedded", "server"])
async def chroma(request, tmp_path):
    bounds = {"max_request_bytes": 2**16}
    if request.param == "embedded":
        settings = ChromaSettings(mode="embedded", path=tmp_path, **bounds)
    else:
        settings = ChromaSettings(port=request.getfixturevalue("port"), **bounds)
    opened = open_chroma(settings)
    yield opened
    await opened.delete_collection(NAME)
    await opened.aclose()


def rows(n, dimension=4):
    return {
        "ids": [f"id{i}" for i in range(n)],
        "embeddings": np.eye(n, dimension, dtype=np.float32) + 0.1,
        "documents": [f"text {i}" for i in range(n)],
        "metadatas": [{"n": i, "tags": ["a", "b"]} for i in range(n)],
    }


async def test_what_was_written_is_read(chroma):
    collection = await chroma.create_collection(NAME)
    await collection.upsert(**rows(3))
    found = await collection.get(ids=["id1", "absent"], include=["documents", "metadatas"])
    assert (found.ids, found.documents) == (["id1"], ["text 1"])
    assert found.metadatas == [{"n": 1, "tags": ["a", "b"]}]


async def test_creating_twice_keeps_the_records(chroma):
    await (await chroma.create_collection(NAME)).upsert(**rows(3))
    assert await (await chroma.create_collection(NAME)).count() == 3


async def test_the_nearest_comes_first_by_cosine_distance(chroma):
    collection = await chroma.create_collection(NAME)
    await collection.upsert(**rows(3))
    ids, distances = await collection.query(np.array([2.2, 0.2, 0.2, 0.2], np.float32), n_results=2)
    assert ids[0] == "id0"
    assert distances[0] == pytest.approx(0, abs=1e-6)


async def test_an_upsert_over_both_limits_writes_every_record(chroma):
    collection = await chroma.create_collection(NAME)
    n = 6_000  # Chroma takes 5,461 at once
    await collection.upsert(**rows(n))
    assert await collection.count() == n
    await collection.delete([f"id{i}" for i in range(n)])
    assert await collection.count() == 0


async def test_a_request_stays_under_its_bound(chroma):
    slices = list(chroma.batches([40_000, 30_000, 1, 2**20, 5]))
    assert slices == [slice(0, 1), slice(1, 3), slice(3, 4), slice(4, 5)]


async def test_metadata_are_merged_and_none_removes(chroma):
    collection = await chroma.create_collection(NAME)
    await collection.upsert(**rows(1))
    await collection.update_metadata(["id0"], [{"tags": None, "lang": "en"}])
    assert (await collection.get(ids=["id0"])).metadatas == [{"n": 0, "lang": "en"}]


async def test_a_missing_collection_is_not_found(chroma):
    with pytest.raises(NotFound):
        await chroma.collection(NAME)


async def test_deleting_twice_is_fine_and_an_open_one_is_gone(chroma):
    collection = await chroma.create_collection(NAME)
    await chroma.delete_collection(NAME)
    await chroma.delete_collection(NAME)
    assert NAME not in await chroma.collections()
    with pytest.raises(NotFound):
        await collection.count()


async def test_what_the_store_refuses_is_the_callers_fault(chroma):
    collection = await chroma.create_collection(NAME)
    await collection.upsert(**rows(1))
    with pytest.raises(InvalidArgument):
        await collection.query(np.ones(3, np.float32), n_results=1)


def test_a_server_that_is_not_there_is_unavailable(unused_tcp_port):
    with pytest.raises(
        Unavailable, match=rf"no Chroma server answers at 127.0.0.1:{unused_tcp_port}"
    ):
        open_chroma(ChromaSettings(port=unused_tcp_port))


def test_embedded_without_a_path_is_a_fault_of_configuration():
    class Example(Settings):
        chroma: ChromaSettings

    with pytest.raises(ConfigurationError, match=r"^chroma: mode embedded needs chroma\.path"):
        load(Example, file=None, environ={"SLUICE_CHROMA__MODE": "embedded"})


async def test_no_write_overtakes_one_that_timed_out(tmp_path):
    chroma = open_chroma(ChromaSettings(mode="embedded", path=tmp_path, timeout_s=0.2))
    landed, order = threading.Event(), []

    def slow() -> None:
        landed.wait(30)
        order.append("late")

    with pytest.raises(Unavailable, match="does not answer"):
        await chroma.write(slow)
    with pytest.raises(Unavailable, match="still at a write"):
        await chroma.write(order.append, "overtaking")
    landed.set()
    await asyncio.wait_for(chroma.written(), 30)
    await chroma.write(order.append, "next")
    assert order == ["late", "next"]
    await chroma.aclose()


async def test_a_read_that_was_given_up_is_never_begun(tmp_path):
    settings = ChromaSettings(mode="embedded", path=tmp_path, max_concurrency=1, timeout_s=30)
    chroma = open_chroma(settings)
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go_on.wait(30)

    running = asyncio.create_task(chroma.call(slow))
    await asyncio.to_thread(begun.wait, 30)
    calls: list[int] = []
    waiting = [asyncio.create_task(chroma.call(calls.append, n)) for n in range(50)]
    await asyncio.wait(waiting, timeout=0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    go_on.set()
    await running
    await chroma.call(calls.append, -1)
    assert calls == [-1]
    await chroma.aclose()
