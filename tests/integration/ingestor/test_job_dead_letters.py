"""Files that fail: what becomes of them, how often they are tried, and what the index keeps."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.errors import FailedPrecondition
from ingestor.extraction import worker_pool
from ingestor.ingestion import Ingestion
from ingestor.state import manifest
from ingestor.storage.pyarrow_storage import PyArrowStorage
from sluice.index.v1 import index_pb2
from tests.integration.ingestor.conftest import silent
from tests.integration.ingestor.files import touch_later, write

SAMPLES = Path(__file__).parents[3] / "samples"


class TestDeadLetters:
    async def test_each_bad_file_is_a_letter_with_its_cause(self, ingester, recorder):
        write(ingester.root, {"good.txt": "good", "empty.txt": "", "blank.md": " \n\n"})
        (ingester.root / "broken.pdf").write_bytes(b"%PDF-1.7 nonsense")
        (ingester.root / "cut.docx").write_bytes(b"PK\x03\x04 cut")
        (ingester.root / "picture.png").write_bytes(b"\x89PNG\r\n")
        (ingester.root / "program").write_bytes(b"\x7fELF\x00\x00\x01")
        (ingester.root / "big.txt").write_text("x" * 5000)
        (ingester.root / "long.txt").write_text("x" * 3000)
        with (ingester.root / "huge.txt").open("wb") as huge:
            huge.truncate(2 * 2**30)
        os.mkfifo(ingester.root / "pipe.txt")
        report = await ingester(max_file_bytes=4000, max_text_bytes=2000)
        letters = {Path(letter.path).name: letter for letter in await ingester.letters()}
        assert {name: letter.cause for name, letter in letters.items()} == {
            "empty.txt": "no_text",
            "blank.md": "no_text",
            "broken.pdf": "malformed",
            "cut.docx": "malformed",
            "picture.png": "unsupported_type",
            "program": "not_text",
            "big.txt": "too_large",
            "long.txt": "too_large",
            "huge.txt": "too_large",
            "pipe.txt": "not_a_file",
        }
        assert report.dead_letters == len(letters)
        assert recorder.names() == {"good.txt"}
        assert all(letter.attempts == 1 and letter.message for letter in letters.values())
        assert letters["big.txt"].stage == "read"
        assert "--max-file-size" in letters["huge.txt"].message
        assert "ingest.formats" in letters["long.txt"].message

    async def test_three_attempts_then_aside_until_it_changes(self, ingester):
        (ingester.root / "a.pdf").write_bytes(b"broken")
        letter = None
        for attempt in range(1, 4):
            (summary,) = (await ingester()).roots
            assert (summary.dead_letters, summary.files_opened) == (1, 1)
            (letter,) = await ingester.letters()
            assert letter.attempts == attempt
            assert letter.is_set_aside == (attempt == 3)
        (summary,) = (await ingester()).roots
        assert (summary.dead_letters, summary.set_aside, summary.files_opened) == (0, 1, 0)
        touch_later(ingester.root / "a.pdf", "still broken")
        (summary,) = (await ingester()).roots
        assert summary.dead_letters == 1
        (changed,) = await ingester.letters()
        assert letter is not None
        assert changed.attempts == 1
        assert changed.first_seen > letter.first_seen

    async def test_a_letter_goes_when_the_file_succeeds_or_vanishes(self, ingester, recorder):
        write(ingester.root, {"a.txt": "", "b.txt": ""})
        await ingester()
        touch_later(ingester.root / "a.txt", "text now")
        (ingester.root / "b.txt").unlink()
        await ingester()
        assert await ingester.letters() == []
        assert recorder.names() == {"a.txt"}

    async def test_a_failed_update_keeps_what_the_index_held(self, ingester, recorder):
        shutil.copy(SAMPLES / "planning/capacity-review-2026.pdf", ingester.root / "a.pdf")
        await ingester()
        touch_later(ingester.root / "a.pdf", "broken")
        (summary,) = (await ingester()).roots
        assert (summary.dead_letters, summary.deleted, summary.documents) == (1, 0, 1)
        assert recorder.names() == {"a.pdf"}
        (ingester.root / "a.pdf").unlink()
        await ingester(allow_empty=True)
        assert recorder.names() == set()

    async def test_a_file_without_text_any_more_is_deleted(self, ingester, recorder):
        write(ingester.root, {"a.txt": "text", "b.txt": "text too"})
        await ingester()
        touch_later(ingester.root / "a.txt", "")
        (summary,) = (await ingester()).roots
        assert (summary.dead_letters, summary.deleted, summary.documents) == (1, 1, 1)
        assert recorder.names() == {"b.txt"}
        (letter,) = await ingester.letters()
        assert (letter.cause, letter.version) == ("no_text", 0)

    async def test_a_rejection_becomes_a_letter(self, ingester, recorder):
        write(ingester.root, {"a.txt": "one", "b.txt": "two"})
        recorder.rejections["a.txt"] = index_pb2.REJECTION_CAUSE_NOT_EMBEDDABLE
        report = await ingester()
        (letter,) = await ingester.letters()
        assert (letter.stage, letter.cause, letter.message) == (
            "index",
            "not_embeddable",
            "refused",
        )
        assert report.dead_letters == 1
        assert recorder.names() == {"b.txt"}

    async def test_a_document_over_the_servers_limit_is_a_letter(self, ingester, recorder):
        recorder.limits.max_document_bytes = 100
        write(ingester.root, {"a.txt": "x" * 101, "b.txt": "x" * 100})
        await ingester()
        (letter,) = await ingester.letters()
        assert (letter.cause, letter.path) == ("content_too_large", "a.txt")
        assert recorder.names() == {"b.txt"}

    async def test_what_utf_8_cannot_say_costs_no_job(self, ingester, recorder):
        (ingester.root / "a.jsonl").write_bytes(b'{"title": "cut \\ud83d"}\n')
        (ingester.root / "b.html").write_bytes(b'<meta charset="undefined"><p>caf\xe9 au lait</p>')
        await ingester()
        assert await ingester.letters() == []
        contents = {d.source_uri[-6:]: d.content.strip() for d in recorder.documents.values()}
        assert contents == {".jsonl": "title: cut \ufffd", "b.html": "caf\ufffd au lait"}

    async def test_a_crashing_file_costs_only_itself(self, ingester, recorder, monkeypatch):
        crash = "data = __import__('sys').stdin.buffer.read(8); __import__('os')._exit(7)"
        shutil.copy(SAMPLES / "planning/capacity-review-2026.pdf", ingester.root / "b.pdf")
        await ingester()
        monkeypatch.setattr(worker_pool, "_PROGRAM", crash)
        shutil.copy(ingester.root / "b.pdf", ingester.root / "a.pdf")
        write(ingester.root, {"c.txt": "plain"})
        (summary,) = (await ingester()).roots
        (letter,) = await ingester.letters()
        assert (letter.path, letter.cause) == ("a.pdf", "worker_crashed")
        assert (summary.indexed, summary.unchanged) == (1, 1)
        monkeypatch.undo()
        await ingester()
        assert recorder.names() == {"a.pdf", "b.pdf", "c.txt"}

    async def test_retry_tries_only_the_letters(self, ingester, recorder):
        (ingester.root / "a.txt").write_text("")
        (ingester.root / "b.pdf").write_bytes(b"broken")
        for _ in range(3):
            await ingester()
        write(ingester.root, {"new.txt": "not for the retry"})
        touch_later(ingester.root / "a.txt", "text")
        letters = await ingester.letters()
        (report,) = await ingester.retry(letters)
        assert recorder.names() == {"a.txt"}
        assert report.dead_letters == 1
        (left,) = await ingester.letters()
        assert (left.path, left.attempts) == ("b.pdf", 4)

    async def test_drop_leaves_the_file_alone_until_it_changes(self, ingester):
        (ingester.root / "a.pdf").write_bytes(b"broken")
        await ingester()
        assert await ingester.drop(await ingester.letters()) == 1
        assert await ingester.letters() == []
        (summary,) = (await ingester()).roots
        assert (summary.dead_letters, summary.files_opened, summary.skipped) == (0, 0, 1)
        touch_later(ingester.root / "a.pdf", "still broken")
        assert (await ingester()).dead_letters == 1

    async def test_letters_are_listed_while_a_job_merges_its_segments(self, ingester, monkeypatch):
        (ingester.root / "a.pdf").write_bytes(b"broken")
        await ingester()
        original = manifest._opened
        merges = 0

        @contextmanager
        def opened(folder, names):
            nonlocal merges
            merges += 1
            with original(folder, names) as streams:
                if merges < 3:
                    raise FileNotFoundError(2, "No such file or directory")
                yield streams

        monkeypatch.setattr(manifest, "_opened", opened)
        assert len(await ingester.letters()) == 1
        merges = -100
        with pytest.raises(FailedPrecondition, match="the state cannot be read"):
            await ingester.letters()

    async def test_drop_forgets_only_these_letters(self, ingester):
        for name in ("a.pdf", "b.pdf"):
            (ingester.root / name).write_bytes(b"broken")
        async with Ingestion.open(ingester.config(), {}) as ingestion:
            for collection in ("docs", "other"):
                roots = [str(ingester.root)]
                await ingestion.ingest(roots, collection, show=silent)
            letters = await ingestion.dead_letters.letters()
            of = {(letter.collection, letter.path): letter for letter in letters}
            assert await ingestion.drop([of["docs", "a.pdf"], of["other", "b.pdf"]]) == 2
            left = await ingestion.dead_letters.letters()
        assert {(letter.collection, letter.path) for letter in left} == {
            ("docs", "b.pdf"),
            ("other", "a.pdf"),
        }

    async def test_an_unreadable_folder_is_a_letter_and_keeps_its_documents(
        self, ingester, recorder, deny_listing
    ):
        write(ingester.root, {"d/a.txt": "a", "d/e/b.txt": "b", "z.txt": "z", "d.txt": "d"})
        await ingester()
        allow = deny_listing("d")
        (summary,) = (await ingester()).roots
        (letter,) = await ingester.letters()
        assert (letter.stage, letter.cause, letter.path) == ("list", "permission_denied", "d")
        assert recorder.names() == {"a.txt", "b.txt", "z.txt", "d.txt"}
        assert (summary.unchanged, summary.deleted, summary.documents) == (2, 0, 4)
        allow()
        await ingester()
        assert await ingester.letters() == []
        assert recorder.deleted == []

    async def test_globs_for_files_do_not_hide_an_unreadable_folder(
        self, ingester, recorder, deny_listing
    ):
        write(ingester.root, {"d/a.md": "a", "z.md": "z", "skip/b.md": "b"})
        await ingester(include=["*.md"], exclude=["skip"])
        deny_listing("d")
        (summary,) = (await ingester(include=["*.md"], exclude=["skip"])).roots
        assert recorder.names() == {"a.md", "z.md"}
        assert (summary.dead_letters, summary.deleted, summary.documents) == (1, 0, 2)

    async def test_an_entry_that_cannot_be_looked_at_costs_only_itself(self, ingester, recorder):
        write(ingester.root, {"a.txt": "a"})
        (ingester.root / "link.txt").symlink_to("x" * 300)  # a name that no system takes
        (ingester.root / ".link").symlink_to("x" * 300)
        os.mkfifo(ingester.root / "pipe")
        write(ingester.root, {os.fsdecode(b"caf\xe9.txt"): "undecodable"})
        await ingester()
        assert recorder.names() == {"a.txt"}
        assert {letter.path: letter.cause for letter in await ingester.letters()} == {
            "link.txt": "unreadable",
            "pipe": "not_a_file",
            "caf\ufffd.txt": "undecodable_name",
        }

    async def test_a_letter_that_cannot_be_looked_at_stays_one(
        self, ingester, recorder, monkeypatch
    ):
        write(ingester.root, {"a.pdf": "broken", "b.pdf": "broken too"})
        await ingester()
        original = PyArrowStorage._full

        def full(self, path):
            # As if its folder had lost its permission; the tests may run as root.
            return original(self, "x" * 300 if path == "a.pdf" else path)

        monkeypatch.setattr(PyArrowStorage, "_full", full)
        (ingester.root / "b.pdf").unlink()
        (report,) = await ingester.retry(await ingester.letters())
        (letter,) = await ingester.letters()
        assert (letter.path, letter.attempts, letter.stage) == ("a.pdf", 2, "read")
        assert report.dead_letters == 1
        assert recorder.sent == []
