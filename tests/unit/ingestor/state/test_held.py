import sqlite3
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
        await held.add([("u/a", Kinds.WHOLE, 3, 1), ("u/t", Kinds.PARTS, 5, 1)])
        await held.add([("u/t", Kinds.PARTS, 4, 1), ("u/t", Kinds.WHOLE, 1, 1)])
        assert not await held.is_empty()
        met = await held.meet(["u/t", "u/x"])
        assert met == {"u/t": Holding(5, Kinds.PARTS | Kinds.WHOLE, 3)}
        assert await held.meet(["u/t"]) == met  # knowing it twice is no harm
        assert await unmet(held) == [("u/a", Holding(3, Kinds.WHOLE, 1))]
        await held.add([("u/f", Kinds.WHOLE, 7, 0)])
        assert await held.meet(["u/f"]) == {"u/f": Holding(7, Kinds.WHOLE, 0)}
        await held.clear()
        assert await held.is_empty()
        assert await unmet(held) == []


async def test_many_files_come_by_the_batch():
    async with HeldFiles.open() as held:
        await held.add((f"u/{n:05}", Kinds.WHOLE, n, 1) for n in range(3_000))
        met = await held.meet([f"u/{n:05}" for n in range(0, 3_000, 2)])
        assert len(met) == 1_500
        assert [uri for uri, _ in await unmet(held)] == [f"u/{n:05}" for n in range(1, 3_000, 2)]


async def test_it_is_private_and_a_kill_leaves_nothing_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modes = []
    create = sqlite3.connect

    def connect(path, **options):
        modes.append(stat.S_IMODE(path.parent.stat().st_mode))
        return create(path, **options)

    monkeypatch.setattr(sqlite3, "connect", connect)
    async with HeldFiles.open() as held:
        assert modes == [0o700]
        # More than its cache, so that it is on the disk.
        await held.add((f"u/{n:0200}", Kinds.WHOLE, n, 1) for n in range(60_000))
        assert list(tmp_path.iterdir()) == []
        (row,) = await held._blocking(
            lambda: held._database.execute("SELECT count(*) FROM held").fetchall()
        )
        assert row == (60_000,)


async def test_no_place_for_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(FailedPrecondition, match=r"missing.*set TMPDIR"):
        async with HeldFiles.open():
            pytest.fail("there is no such folder")


async def test_a_full_disk_is_told():
    async with HeldFiles.open() as held:
        pages = await held._blocking(
            lambda: held._database.execute("PRAGMA max_page_count = 4").fetchone()
        )
        assert pages
        with pytest.raises(FailedPrecondition, match=r"full.*set TMPDIR"):
            await held.add((f"u/{n:05}", Kinds.WHOLE, n, 1) for n in range(3_000))
