"""Files that hold many documents: what is sent, swept, deleted and remembered of them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest

from common.errors import FailedPrecondition
from ingestor.extraction import worker_pool
from ingestor.job import outcomes
from ingestor.state.manifest import RUNNING
from sluice.index.v1 import index_pb2

if TYPE_CHECKING:
    from pathlib import Path

ROWS = {"match": "*.jsonl", "format": "jsonl", "id": "id", "text": ["text"]}
FORMATS = {"formats": [ROWS]}


def write(path: Path, rows: dict[str, str]) -> None:
    """Write the table with a modification time that certainly differs."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    lines = (json.dumps({"id": key, "text": text}) for key, text in rows.items())
    path.write_text("\n".join(lines))
    later = max(path.stat().st_mtime_ns, before) + 1_000_000
    os.utime(path, ns=(later, later))


def rows(*keys: object) -> dict[str, str]:
    return {str(key): f"text {key}" for key in keys}


def texts(recorder) -> dict[str, str]:
    """Contents by what follows the root."""
    return {d.source_uri.rpartition("/")[2]: d.content for d in recorder.documents.values()}


def versions(recorder) -> set[int]:
    return {document.version for document in recorder.documents.values()}


class TestRows:
    async def test_each_row_is_a_document_of_the_file(self, ingester, recorder):
        write(ingester.root / "a.jsonl", rows(1, 2, 3) | {"4": "  "})
        (summary,) = (await ingester(**FORMATS)).roots
        assert texts(recorder) == {f"a.jsonl#id={n}": f"text {n}" for n in (1, 2, 3)}
        uri = (ingester.root / "a.jsonl").as_uri()
        assert {d.container_uri for d in recorder.documents.values()} == {uri}
        assert versions(recorder) == {(ingester.root / "a.jsonl").stat().st_mtime_ns // 1000}
        assert (summary.indexed, summary.documents, summary.files_opened) == (3, 3, 1)
        assert (summary.listed, summary.passed_over, summary.dead_letters) == (1, 1, 0)
        assert summary.bytes == (ingester.root / "a.jsonl").stat().st_size
        assert recorder.containers == []  # nothing older was there
        recorder.sent.clear()
        (summary,) = (await ingester(**FORMATS)).roots
        assert (summary.files_opened, summary.unchanged, summary.documents) == (0, 1, 3)
        assert recorder.sent == []

    async def test_rows_that_are_gone_go_once_the_others_are_there(self, ingester, recorder):
        write(ingester.root / "a.jsonl", rows(1, 2, 3))
        write(ingester.root / "b.jsonl", rows(1))
        await ingester(**FORMATS)
        write(ingester.root / "a.jsonl", rows(2, 4) | {"3": "other"})
        (summary,) = (await ingester(**FORMATS)).roots
        expected = {"a.jsonl#id=2": "text 2", "a.jsonl#id=3": "other", "a.jsonl#id=4": "text 4"}
        assert texts(recorder) == expected | {"b.jsonl#id=1": "text 1"}
        assert (summary.deleted, summary.updated, summary.documents) == (1, 2, 4)
        version = (ingester.root / "a.jsonl").stat().st_mtime_ns // 1000
        assert recorder.containers == [((ingester.root / "a.jsonl").as_uri(), version - 1)]

    async def test_a_vanished_or_emptied_container_takes_all_its_documents(
        self, ingester, recorder
    ):
        for name in ("gone", "empty", "blank", "stays"):
            write(ingester.root / f"{name}.jsonl", rows(*range(20)))
        await ingester(**FORMATS)
        (ingester.root / "gone.jsonl").unlink()
        write(ingester.root / "empty.jsonl", {})
        write(ingester.root / "blank.jsonl", {"1": ""})
        recorder.deletes_at_once = 7
        (summary,) = (await ingester(**FORMATS)).roots
        assert {name.partition("#")[0] for name in texts(recorder)} == {"stays.jsonl"}
        assert (summary.deleted, summary.documents, summary.dead_letters) == (60, 20, 2)
        letters = await ingester.letters(**FORMATS)
        assert {letter.path: letter.cause for letter in letters} == {
            "empty.jsonl": "no_text",
            "blank.jsonl": "no_text",
        }
        assert (await ingester(**FORMATS)).roots[0].deleted == 0

    async def test_a_rebuild_expects_documents_not_files(self, ingester, recorder):
        write(ingester.root / "a.jsonl", rows(*range(30)))
        (ingester.root / "b.txt").write_text("one")
        (ingester.root / "c.jsonl").write_text("")
        report = await ingester(rebuild=True, activate=True, **FORMATS)
        assert recorder.expected == [31]
        assert report.is_activated

    async def test_members_of_an_archive(self, ingester, recorder):
        with zipfile.ZipFile(ingester.root / "a.zip", "w") as archive:
            archive.writestr("x/one.md", "# One\ntext")
            archive.writestr("two.txt", "two")
        await ingester()
        uri = (ingester.root / "a.zip").as_uri()
        assert {d.source_uri: d.content for d in recorder.documents.values()} == {
            f"{uri}#member=x/one.md": "# One\ntext",
            f"{uri}#member=two.txt": "two",
        }
        (ingester.root / "a.zip").unlink()
        await ingester(allow_empty=True)
        assert texts(recorder) == {}

    @pytest.mark.parametrize("bytes_in_flight", [1, 5_000])
    async def test_small_budgets_and_windows_bring_everything(
        self, ingester, recorder, bytes_in_flight
    ):
        for name in "abcdef":
            write(ingester.root / f"{name}.jsonl", rows(*range(200)))
            (ingester.root / f"{name}.txt").write_text(name * 3000)
        stream = {"max_unacknowledged_documents": 3, "max_unacknowledged_bytes": 500}
        async with asyncio.timeout(60):
            (summary,) = (
                await ingester(max_bytes_in_flight=bytes_in_flight, stream=stream, **FORMATS)
            ).roots
        assert summary.documents == 6 * 200 + 6
        assert len(recorder.documents) == 6 * 200 + 6


class TestFailures:
    async def test_rejected_rows_make_a_letter_and_nothing_is_swept(self, ingester, recorder):
        write(ingester.root / "a.jsonl", rows(1, 2, 3))
        await ingester(**FORMATS)
        write(ingester.root / "a.jsonl", rows(2, 3, 4))
        recorder.rejections["a.jsonl#id=3"] = index_pb2.REJECTION_CAUSE_NOT_EMBEDDABLE
        recorder.rejections["a.jsonl#id=4"] = index_pb2.REJECTION_CAUSE_NOT_EMBEDDABLE
        (summary,) = (await ingester(**FORMATS)).roots
        assert recorder.containers == []
        assert set(texts(recorder)) == {"a.jsonl#id=1", "a.jsonl#id=2", "a.jsonl#id=3"}
        (letter,) = await ingester.letters(**FORMATS)
        assert (letter.stage, letter.cause) == ("index", "not_embeddable")
        assert letter.message == "2 of 3 records were rejected; first: #id=3: refused"
        assert (summary.dead_letters, summary.documents, summary.updated) == (1, 3, 0)
        version = letter.version
        # Once it succeeds, in the same state and so with the same version, it is swept.
        recorder.rejections.clear()
        (report,) = await ingester.retry([letter], **FORMATS)
        assert report.dead_letters == 0
        assert set(texts(recorder)) == {"a.jsonl#id=2", "a.jsonl#id=3", "a.jsonl#id=4"}
        assert versions(recorder) == {version}
        assert await ingester.letters(**FORMATS) == []

    async def test_a_container_that_breaks_in_the_middle_keeps_what_was_sent(
        self, ingester, recorder, monkeypatch
    ):
        write(ingester.root / "a.jsonl", rows(*range(10)))
        await ingester(**FORMATS)
        write(ingester.root / "a.jsonl", {str(n): "x" * 300_000 for n in range(5, 15)})
        original = worker_pool._Worker._exchange
        answers = 0

        async def dies_at_second_batch(self, frame):
            nonlocal answers
            answer = await original(self, frame)
            answers += getattr(answer, "batch", None) is not None
            if answers == 2:
                self._process.kill()
                answers = -100
            return answer

        monkeypatch.setattr(worker_pool._Worker, "_exchange", dies_at_second_batch)
        (summary,) = (await ingester(**FORMATS)).roots
        monkeypatch.undo()
        (letter,) = await ingester.letters(**FORMATS)
        assert letter.cause == "worker_crashed"
        assert recorder.containers == []
        held = len(recorder.documents)
        assert 10 < held < 15
        assert summary.dead_letters == 1
        (summary,) = (await ingester(**FORMATS)).roots
        assert len(recorder.documents) == summary.documents == 10
        assert versions(recorder) == {letter.version}

    async def test_a_broken_container_is_set_aside(self, ingester):
        write(ingester.root / "a.jsonl", rows(1, 2))
        (ingester.root / "a.jsonl").write_bytes(b'{"id": "1", "text": "one"}\n{"id": "1"')
        rule = {"match": "*.parquet", "format": "parquet", "text": ["text"]}
        (ingester.root / "b.parquet").write_bytes(b"PAR1 nonsense")
        for _ in range(3):
            assert (await ingester(formats=[ROWS, rule])).dead_letters == 1
        (summary,) = (await ingester(formats=[ROWS, rule])).roots
        assert (summary.dead_letters, summary.set_aside, summary.files_opened) == (0, 1, 0)
        (letter,) = await ingester.letters()
        assert (letter.path, letter.cause) == ("b.parquet", "malformed")


class TestRecipes:
    async def test_a_new_rule_makes_a_file_changed_and_the_other_kind_go(self, ingester, recorder):
        write(ingester.root / "a.jsonl", rows(1, 2))
        (ingester.root / "b.txt").write_text("b")
        await ingester()
        assert set(texts(recorder)) == {"a.jsonl", "b.txt"}
        (summary,) = (await ingester(**FORMATS)).roots
        assert set(texts(recorder)) == {"a.jsonl#id=1", "a.jsonl#id=2", "b.txt"}
        assert (summary.files_opened, summary.unchanged, summary.documents) == (1, 1, 3)
        titled = ROWS | {"template": "say {text}", "text": []}
        (summary,) = (await ingester(formats=[titled])).roots
        assert texts(recorder)["a.jsonl#id=1"] == "say text 1"
        assert (summary.files_opened, summary.documents) == (1, 3)
        by_row = ROWS | {"id": None}
        await ingester(formats=[by_row])
        assert len(recorder.documents) == 3
        assert not any("#id=" in name for name in texts(recorder))
        (summary,) = (await ingester()).roots
        assert set(texts(recorder)) == {"a.jsonl", "b.txt"}
        assert (summary.files_opened, summary.documents) == (1, 2)
        assert (await ingester()).roots[0].files_opened == 0

    async def test_between_two_recipes_the_file_may_vanish(self, ingester, recorder):
        write(ingester.root / "a.jsonl", rows(1, 2))
        (ingester.root / "b.txt").write_text("b")
        await ingester()
        recorder.rejections["a.jsonl#id=2"] = index_pb2.REJECTION_CAUSE_NOT_EMBEDDABLE
        await ingester(**FORMATS)
        assert set(texts(recorder)) == {"a.jsonl", "a.jsonl#id=1", "b.txt"}
        (ingester.root / "a.jsonl").unlink()
        await ingester(**FORMATS)
        assert set(texts(recorder)) == {"b.txt"}

    async def test_a_recipe_that_fails_at_first_still_sweeps_in_the_end(self, ingester, recorder):
        # The same state of the bytes by another recipe must not share a version with the first.
        write(ingester.root / "a.jsonl", rows(1, 2))
        await ingester(**FORMATS)
        by_row = {"formats": [ROWS | {"id": None}]}
        for number in range(3):
            cause = index_pb2.REJECTION_CAUSE_NOT_EMBEDDABLE
            recorder.rejections[f"a.jsonl#row={number}"] = cause
        assert (await ingester(**by_row)).dead_letters == 1
        assert not any("#row=" in name for name in texts(recorder))
        recorder.rejections.clear()
        await ingester(**by_row)
        assert len(recorder.documents) == 2
        assert not any("#id=" in name for name in texts(recorder))


class TestCrashes:
    async def crash(self, ingester, recorder, after: int, **settings) -> None:
        """End a job as a kill would, after so many documents."""
        refusal = FailedPrecondition("no more")
        recorder.failures = [(after, refusal), *[(0, refusal)] * 5]
        with pytest.raises(FailedPrecondition, match="no more"):
            await ingester(**FORMATS, **settings)
        recorder.failures.clear()

    async def test_a_killed_job_ends_in_the_index_of_a_clean_run(self, ingester, recorder):
        recorder.limits.max_batch_documents = 4
        write(ingester.root / "a.jsonl", rows(*range(40)))
        write(ingester.root / "b.jsonl", rows(*range(10)))
        await self.crash(ingester, recorder, 15)
        assert 0 < len(recorder.documents) < 50
        (summary,) = (await ingester(**FORMATS)).roots
        assert len(recorder.documents) == summary.documents == 50
        times = {path.stat().st_mtime_ns // 1000 for path in ingester.root.iterdir()}
        assert versions(recorder) == times
        assert (await ingester(**FORMATS)).roots[0].files_opened == 0

    async def test_a_container_that_changes_after_a_kill_keeps_nothing_of_before(
        self, ingester, recorder
    ):
        recorder.limits.max_batch_documents = 4
        write(ingester.root / "a.jsonl", rows(*range(40)))
        await self.crash(ingester, recorder, 15)
        write(ingester.root / "a.jsonl", rows(*range(38, 60)))
        (summary,) = (await ingester(**FORMATS)).roots
        assert set(texts(recorder)) == {f"a.jsonl#id={n}" for n in range(38, 60)}
        assert summary.documents == 22

    @pytest.mark.parametrize("knows", ["manifest", "index"])
    async def test_a_container_that_vanishes_after_a_kill_goes(self, ingester, recorder, knows):
        recorder.limits.max_batch_documents = 4
        write(ingester.root / "a.jsonl", rows(*range(40)))
        (ingester.root / "b.txt").write_text("b")
        await ingester(**FORMATS)
        write(ingester.root / "a.jsonl", rows(*range(20, 60)))
        await self.crash(ingester, recorder, 15)
        (ingester.root / "a.jsonl").unlink()
        if knows == "index":
            shutil.rmtree(ingester.state)
        (summary,) = (await ingester(**FORMATS)).roots
        assert set(texts(recorder)) == {"b.txt"}
        assert summary.documents == 1

    async def test_a_lost_manifest_costs_reading_only(self, ingester, recorder):
        write(ingester.root / "a.jsonl", rows(1, 2, 3))
        write(ingester.root / "b.jsonl", rows(1))
        await ingester(**FORMATS)
        before = versions(recorder)
        shutil.rmtree(ingester.state)
        write(ingester.root / "a.jsonl", rows(2, 3))
        (ingester.root / "b.jsonl").unlink()
        (summary,) = (await ingester(**FORMATS)).roots
        assert set(texts(recorder)) == {"a.jsonl#id=2", "a.jsonl#id=3"}
        assert (summary.unchanged, summary.deleted) == (2, 2)
        assert versions(recorder).isdisjoint(before)

    @pytest.mark.parametrize("most_counted", [0, 1, 16])
    async def test_a_manifest_lost_while_the_rule_changed_leaves_nothing_for_ever(
        self, ingester, recorder, caplog, monkeypatch, most_counted
    ):
        monkeypatch.setattr(outcomes, "_MOST_COUNTED", most_counted)
        write(ingester.root / "a.jsonl", rows(1, 2, 3))
        write(ingester.root / "b.jsonl", rows(1))
        await ingester(**FORMATS)
        shutil.rmtree(ingester.state)
        by_row = {"formats": [ROWS | {"id": None}]}
        listings = recorder.listings
        await ingester(**by_row)
        assert recorder.listings == listings + 1 + min(2, most_counted)
        assert "they go with the next run" in caplog.text
        (summary,) = (await ingester(**by_row)).roots
        assert set(texts(recorder)) == {*(f"a.jsonl#row={n}" for n in range(3)), "b.jsonl#row=0"}
        assert (summary.files_opened, summary.documents) == (2, 4)
        assert (await ingester(**by_row)).roots[0].files_opened == 0

    async def test_after_a_kill_without_rows_only_the_container_is_counted(
        self, ingester, recorder, caplog
    ):
        recorder.limits.max_batch_documents = 4
        write(ingester.root / "a.jsonl", rows(*range(40)))
        await ingester(**FORMATS)
        write(ingester.root / "a.jsonl", rows(*range(20, 60)))
        await self.crash(ingester, recorder, 30)
        shutil.rmtree(ingester.state)
        listings = recorder.listings
        await ingester(**FORMATS)
        assert recorder.listings == listings + 2  # the root, and the container
        assert set(texts(recorder)) == {f"a.jsonl#id={n}" for n in range(20, 60)}
        assert versions(recorder) == {(ingester.root / "a.jsonl").stat().st_mtime_ns // 1000}
        assert "they go with the next run" not in caplog.text
        assert (await ingester(**FORMATS)).roots[0].files_opened == 0

    async def test_a_row_is_believed_only_if_the_index_has_all_of_it(self, ingester, recorder):
        write(ingester.root / "a.jsonl", rows(1, 2, 3))
        write(ingester.root / "b.jsonl", rows(1, 2))
        await ingester(**FORMATS)
        (folder,) = {path.parent for path in ingester.state.rglob("manifest.parquet")}
        (folder / RUNNING).write_bytes(b"")
        victim = next(
            i for i, d in recorder.documents.items() if d.source_uri.endswith("a.jsonl#id=2")
        )
        version = recorder.documents.pop(victim).version
        (summary,) = (await ingester(**FORMATS)).roots
        assert (summary.files_opened, summary.updated, summary.unchanged) == (1, 1, 3)
        assert recorder.documents[victim].version == version
        assert len(recorder.documents) == 5
