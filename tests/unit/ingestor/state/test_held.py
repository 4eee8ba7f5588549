import stat
import tempfile

import pytest

from common.errors import FailedPrecondition
from ingestor.state.file_records import Holding, Kinds
from ingestor.state.held import HeldFiles


async def unmet(held):
    return [file async for files in held.unmet() for file in files.items()]


async def test_documents_are_added_up_by_file():
    async with HeldFiles.open() as held:
        assert await held.is_empty()
        await held.add([("u/a", Kinds.WHOLE, 3), ("u/t", Kinds.PARTS, 5)])
        await held.add([("u/t", Kinds.PARTS, 4), ("u/t", Kinds.WHOLE, 1)])
        assert not await held.is_empty()
        met = await held.meet(["u/t", "u/x"])
        assert met == {"u/t": Holding(5, Kinds.PARTS | Kinds.WHOLE, 3)}
        assert await held.meet(["u/t"]) == met  # knowing it twice is no harm
        assert await unmet(held) == [("u/a", Holding(3, Kinds.WHOLE, 1))]
        await held.clear()
        assert await held.is_empty()
        assert await unmet(held) == []


async def test_many_files_come_by_the_batch():
    async with HeldFiles.open() as held:
        await held.add((f"u/{n:05}", Kinds.WHOLE, n) for n in range(3_000))
        met = await held.meet([f"u/{n:05}" for n in range(0, 3_000, 2)])
        assert len(met) == 1_500
        assert [uri for uri, _ in await unmet(held)] == [f"u/{n:05}" for n in range(1, 3_000, 2)]


async def test_it_is_private_and_goes_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with HeldFiles.open() as held:
        await held.add([("u/a", Kinds.WHOLE, 1)])
        (folder,) = tmp_path.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []


async def test_a_full_disk_is_told():
    async with HeldFiles.open() as held:
        pages = await held._blocking(
            lambda: held._database.execute("PRAGMA max_page_count = 4").fetchone()
        )
        assert pages
        with pytest.raises(FailedPrecondition, match=r"full.*set TMPDIR"):
            await held.add((f"u/{n:05}", Kinds.WHOLE, n) for n in range(3_000))
