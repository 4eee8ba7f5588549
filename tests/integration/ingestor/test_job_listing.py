"""What the listing alone decides: age, what is no file, what cannot be listed, and outages."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest

from common.errors import FailedPrecondition, Unavailable
from ingestor.state.manifest import RUNNING
from ingestor.storage.pyarrow_storage import PyArrowStorage
from ingestor.storage.sources import StorageSource

DAY_S = 86_400


def age(path, days: float, text: str | None = None) -> None:
    """Make the file so old, with another text if one is given."""
    if text is not None:
        path.write_text(text)
    then = time.time() - days * DAY_S
    os.utime(path, (then, then))


class TestModifiedSince:
    @pytest.mark.parametrize("as_time", [False, True])
    async def test_older_files_are_left_as_they_are(self, ingester, recorder, as_time):
        for name in ("changed", "same", "gone"):
            age(ingester.root / name, 20, name)
        await ingester()
        age(ingester.root / "changed", 10, "changed since")
        (ingester.root / "gone").unlink()
        age(ingester.root / "old and new", 10, "not taken")
        age(ingester.root / "young", 1, "taken")
        since = "7d"
        if as_time:
            since = (datetime.now(UTC) - timedelta(days=7)).isoformat()
        (summary,) = (await ingester(modified_since=since)).roots
        assert recorder.names() == {"changed", "same", "young"}
        assert (summary.files_opened, summary.skipped, summary.unchanged) == (1, 2, 1)
        assert (summary.deleted, summary.documents) == (1, 3)
        (summary,) = (await ingester()).roots
        assert recorder.names() == {"changed", "same", "young", "old%20and%20new"}
        assert (summary.updated, summary.indexed, summary.unchanged) == (1, 1, 2)

    async def test_a_lost_manifest_does_not_lose_older_files(self, ingester, recorder):
        for name in ("a", "b"):
            age(ingester.root / name, 20, name)
        await ingester()
        versions = {document.version for document in recorder.documents.values()}
        shutil.rmtree(ingester.state)
        (summary,) = (await ingester(modified_since="7d")).roots
        assert (summary.documents, summary.deleted, summary.files_opened) == (2, 0, 0)
        (ingester.root / "a").unlink()
        (summary,) = (await ingester(modified_since="7d")).roots
        assert recorder.names() == {"b"}
        assert (summary.documents, summary.deleted) == (1, 1)
        # What only the index tells of is read as soon as it may be.
        assert (await ingester()).roots[0].files_opened == 1
        assert {document.version for document in recorder.documents.values()} <= versions
        assert (await ingester()).roots[0].files_opened == 0


class TestWhatIsNoFile:
    async def test_it_is_set_aside_like_other_letters(self, ingester):
        (ingester.root / "a.txt").write_text("a")
        os.mkfifo(ingester.root / "pipe")
        (ingester.root / os.fsdecode(b"caf\xe9.txt")).write_text("undecodable")
        for attempt in (1, 2, 3):
            assert (await ingester()).dead_letters == 2
            letters = await ingester.letters()
            assert [letter.attempts for letter in letters] == [attempt] * 2
        (summary,) = (await ingester()).roots
        assert (summary.dead_letters, summary.set_aside, summary.unchanged) == (0, 2, 1)
        (ingester.root / "pipe").unlink()
        await ingester()
        assert [letter.cause for letter in await ingester.letters()] == ["undecodable_name"]

    async def test_a_file_that_became_a_pipe_is_gone(self, ingester, recorder):
        for name in ("a", "b"):
            (ingester.root / name).write_text(name)
        await ingester()
        (ingester.root / "a").unlink()
        os.mkfifo(ingester.root / "a")
        (summary,) = (await ingester()).roots
        assert recorder.names() == {"b"}
        assert (summary.deleted, summary.documents, summary.dead_letters) == (1, 1, 1)

    async def test_a_folder_is_listed_again_however_often_it_failed(
        self, ingester, recorder, deny_listing
    ):
        (ingester.root / "d").mkdir()
        for name in ("d/a.txt", "b.txt"):
            (ingester.root / name).write_text(name)
        await ingester()
        allow = deny_listing("d")
        for attempt in (1, 2, 3):
            assert (await ingester()).dead_letters == 1
            (letter,) = await ingester.letters()
            assert letter.attempts == attempt
        (summary,) = (await ingester()).roots
        assert (summary.dead_letters, summary.set_aside, summary.documents) == (0, 1, 2)
        allow()
        (ingester.root / "d/a.txt").write_text("changed while nobody could look")
        (summary,) = (await ingester()).roots
        assert (summary.updated, summary.unchanged) == (1, 1)
        assert await ingester.letters() == []
        assert len(recorder.documents) == 2


class TestOutages:
    async def test_without_a_login_to_kerberos_nothing_begins(self, ingester, recorder, tmp_path):
        (ingester.root / "a.txt").write_text("a")
        kerberos = {"principal": "sluice@EXAMPLE.ORG", "keytab": str(tmp_path / "absent.keytab")}
        with pytest.raises(FailedPrecondition, match=r"Kerberos: .*absent\.keytab"):
            await ingester(hdfs={"kerberos": kerberos})
        assert recorder.sent == []
        assert not ingester.state.exists()

    async def test_a_storage_that_fails_in_mid_job_ends_it_with_what_was_done_recorded(
        self, ingester, recorder, monkeypatch
    ):
        for number in range(40):
            (ingester.root / f"{number:02}.txt").write_text(f"text {number}")
        original = StorageSource.read
        reads = 0

        async def read(self, entry, max_bytes):
            nonlocal reads
            reads += 1
            if reads > 20:
                raise Unavailable("the storage is out of reach")
            return await original(self, entry, max_bytes)

        monkeypatch.setattr(StorageSource, "read", read)
        with pytest.raises(Unavailable, match="out of reach"):
            await ingester(readers=1, stream={"max_unacknowledged_documents": 2})
        monkeypatch.undo()
        assert await ingester.letters() == []
        assert list(ingester.state.rglob(RUNNING))
        (summary,) = (await ingester()).roots
        assert 20 <= summary.files_opened <= 23
        assert len(recorder.documents) == summary.documents == 40

    async def test_a_file_that_vanishes_after_it_was_listed_goes(
        self, ingester, recorder, monkeypatch
    ):
        for name in ("a", "b", "new"):
            (ingester.root / name).write_text(name)
        (ingester.root / "new").unlink()
        await ingester()
        (ingester.root / "a").write_text("changed and then gone")
        (ingester.root / "new").write_text("new and then gone")
        original = PyArrowStorage.read

        def read(self, path, max_bytes):
            if path in {"a", "new"}:
                (ingester.root / path).unlink()
            return original(self, path, max_bytes)

        monkeypatch.setattr(PyArrowStorage, "read", read)
        (summary,) = (await ingester()).roots
        assert recorder.names() == {"b"}
        assert (summary.deleted, summary.dead_letters, summary.documents) == (1, 0, 1)
        assert (await ingester()).roots[0].unchanged == 1
