"""Jobs from folder to acknowledgement, against a recording index service."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from common.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from ingestor.job import outcomes
from ingestor.state import held, manifest
from ingestor.state.manifest import RUNNING
from ingestor.state.state_folder import StateFolder
from tests.integration.ingestor.files import touch_later, write

SAMPLES = Path(__file__).parents[3] / "samples"


def marks(state: Path) -> list[Path]:
    return list(state.rglob(RUNNING))


class TestWhatChanged:
    async def test_a_first_run_indexes_every_file_once(self, ingester, recorder):
        write(ingester.root, {"a.md": "# Alpha\ntext", "b/c.txt": "gamma", "b/.hidden.txt": "no"})
        report = await ingester()
        (summary,) = report.roots
        assert recorder.names() == {"a.md", "c.txt"}
        assert sorted(recorder.sent) == sorted(recorder.uris())
        assert (summary.indexed, summary.listed, summary.skipped) == (2, 3, 1)
        assert (summary.files_opened, summary.chunks, summary.documents) == (2, 2, 2)
        assert summary.bytes == len("# Alpha\ntext") + len("gamma")
        assert not marks(ingester.state)
        by_name = {d.source_uri.rpartition("/")[2]: d for d in recorder.documents.values()}
        alpha = by_name["a.md"]
        assert (alpha.title, alpha.media_type, alpha.content) == (
            "Alpha",
            "text/markdown",
            "# Alpha\ntext",
        )
        assert alpha.version == (ingester.root / "a.md").stat().st_mtime_ns // 1000
        assert alpha.source_uri == (ingester.root / "a.md").as_uri()
        assert by_name["c.txt"].metadata["folder"].string_value == "b"
        assert recorder.openings[0].index_version == 1

    async def test_an_unchanged_folder_opens_and_sends_nothing(self, ingester, recorder):
        write(ingester.root, {f"{number}.txt": f"text {number}" for number in range(20)})
        await ingester()
        recorder.sent.clear()
        recorder.openings.clear()
        before = {path: path.stat().st_mtime_ns for path in ingester.state.rglob("*")}
        (summary,) = (await ingester()).roots
        assert (summary.unchanged, summary.files_opened, summary.documents) == (20, 0, 20)
        assert recorder.sent == []
        assert recorder.deleted == []
        assert recorder.openings == []
        assert {path: path.stat().st_mtime_ns for path in ingester.state.rglob("*")} == before

    async def test_exactly_what_changed_is_touched(self, ingester, recorder):
        write(ingester.root, {f"d/{number}.txt": f"text {number}" for number in range(10)})
        await ingester()
        recorder.sent.clear()
        recorder.listings = 0
        touch_later(ingester.root / "d/3.txt", "other text")
        (ingester.root / "d/5.txt").unlink()
        write(ingester.root, {"new.txt": "new"})
        (summary,) = (await ingester()).roots
        assert {uri.rpartition("/")[2] for uri in recorder.sent} == {"3.txt", "new.txt"}
        assert [uri.rpartition("/")[2] for uri in recorder.deleted] == ["5.txt"]
        assert (summary.indexed, summary.updated, summary.deleted) == (1, 1, 1)
        assert (summary.unchanged, summary.documents) == (8, 10)
        assert recorder.listings == 0

    @pytest.mark.parametrize("knows", ["manifest", "index"])
    async def test_a_root_that_lost_all_its_files_deletes_nothing_unasked(
        self, ingester, recorder, knows
    ):
        write(ingester.root, {"a.txt": "a", "b.txt": "b"})
        await ingester()
        for name in ("a.txt", "b.txt"):
            (ingester.root / name).unlink()
        if knows == "index":
            shutil.rmtree(ingester.state)
        for vain in ({}, {"include": ("*.nothing",)}):
            with pytest.raises(FailedPrecondition, match=r"nothing was deleted.*--allow-empty"):
                await ingester(**vain)
        assert recorder.names() == {"a.txt", "b.txt"}
        (summary,) = (await ingester(allow_empty=True)).roots
        assert (summary.deleted, summary.documents) == (2, 0)
        assert recorder.names() == set()
        assert (await ingester()).roots[0].deleted == 0  # an empty root with nothing held is fine

    async def test_a_folder_that_became_a_file_and_back(self, ingester, recorder):
        write(ingester.root, {"x/a.txt": "a", "x.y": "b", "x/z.txt": "c"})
        await ingester()
        shutil.rmtree(ingester.root / "x")
        write(ingester.root, {"x": "now a file"})
        await ingester()
        assert recorder.names() == {"x", "x.y"}

    async def test_a_touched_file_is_sent_and_unchanged(self, ingester):
        write(ingester.root, {"a.txt": "same"})
        await ingester()
        touch_later(ingester.root / "a.txt", "same")
        (summary,) = (await ingester()).roots
        assert (summary.unchanged, summary.updated, summary.chunks) == (1, 0, 0)

    async def test_an_older_file_restored_from_a_backup_replaces_the_newer(
        self, ingester, recorder
    ):
        write(ingester.root, {"a.txt": "new state"})
        await ingester()
        (ingester.root / "a.txt").write_text("restored")
        os.utime(ingester.root / "a.txt", (1_000_000_000, 1_000_000_000))
        (summary,) = (await ingester()).roots
        assert (summary.updated, summary.superseded) == (1, 0)
        (document,) = recorder.documents.values()
        assert document.content == "restored"
        assert (await ingester()).roots[0].unchanged == 1

    async def test_globs_leave_out_and_a_narrower_run_deletes(self, ingester, recorder):
        write(ingester.root, {"a.md": "a", "b.txt": "b", "skip/c.md": "c"})
        (summary,) = (await ingester(exclude=["skip"])).roots
        assert recorder.names() == {"a.md", "b.txt"}
        await ingester(include=["*.md"])
        assert recorder.names() == {"a.md", "c.md"}
        assert summary.indexed == 2

    async def test_a_single_file_is_a_root(self, ingester, recorder):
        write(ingester.root, {"a.md": "a", "a.md.txt": "b"})
        await ingester(str(ingester.root / "a.md"))
        assert recorder.names() == {"a.md"}

    async def test_odd_names(self, ingester, recorder):
        names = ["new\nline.txt", "emoji 😀.txt", "100%.txt", "a b#?.txt", "[x].txt"]
        write(ingester.root, dict.fromkeys(names, "text"))
        await ingester()
        assert recorder.uris() == {(ingester.root / name).as_uri() for name in names}
        assert (await ingester()).roots[0].unchanged == len(names)

    async def test_roots_within_roots_and_missing_roots_are_refused(self, ingester):
        write(ingester.root, {"d/a.md": "a"})
        with pytest.raises(InvalidArgument, match="lies within"):
            await ingester(str(ingester.root), str(ingester.root / "d"))
        with pytest.raises(NotFound, match="no such file"):
            await ingester(str(ingester.root / "absent"))

    async def test_the_samples(self, ingester, recorder):
        shutil.copytree(SAMPLES, ingester.root, dirs_exist_ok=True)
        files = [path for path in ingester.root.rglob("*") if path.is_file()]
        (summary,) = (await ingester()).roots
        assert summary.dead_letters == 0
        assert summary.indexed == len(files)
        pdf = next(d for d in recorder.documents.values() if d.source_uri.endswith(".pdf"))
        assert [page.number for page in pdf.pages] == list(range(1, len(pdf.pages) + 1))
        assert len(pdf.pages) > 1
        first = pdf.pages[0].span
        assert "page 1" in pdf.content[first.start : first.end]
        assert "page 2" not in pdf.content[first.start : first.end]


class TestCrashes:
    async def test_a_killed_job_is_continued_and_its_leftovers_deleted(self, ingester, recorder):
        write(ingester.root, {f"{number:02}.txt": f"text {number}" for number in range(40)})
        refusal = FailedPrecondition("the version takes no writes")
        recorder.failures = [(10, refusal), (0, refusal), (0, refusal)]
        with pytest.raises(FailedPrecondition, match="takes no writes"):
            await ingester()
        recorder.failures.clear()
        assert len(marks(ingester.state)) == 1
        written = set(recorder.uris())
        assert written
        gone = min(written)
        os.unlink(gone.removeprefix("file://"))  # noqa: PTH108 — one file of a test
        (summary,) = (await ingester()).roots
        assert recorder.listings == 2
        assert gone in recorder.deleted
        assert len(recorder.documents) == 39
        assert summary.documents == 39
        assert not marks(ingester.state)

    async def test_what_was_acknowledged_before_the_failure_is_not_read_again(
        self, ingester, recorder
    ):
        write(ingester.root, {f"{number:02}.txt": f"text {number}" for number in range(40)})
        recorder.limits.max_batch_documents = 1
        refusal = FailedPrecondition("no more")
        recorder.failures = [(21, refusal), (0, refusal), (0, refusal)]
        with pytest.raises(FailedPrecondition):
            await ingester(stream={"max_unacknowledged_documents": 4})
        recorder.failures.clear()
        (summary,) = (await ingester()).roots
        # Acknowledgements under way when the stream broke are lost: at most a window of them.
        assert summary.files_opened <= 20 + 4

    async def test_fragments_of_a_killed_writer_are_deleted_or_sent_again(self, ingester, recorder):
        names = {"gone.txt": "gone", "kept.txt": "kept", "whole.txt": "whole"}
        write(ingester.root, names)
        await ingester()
        ids = {d.source_uri.rpartition("/")[2]: i for i, d in recorder.documents.items()}
        recorder.fragments |= {ids["gone.txt"], ids["kept.txt"]}
        (folder,) = {path.parent for path in ingester.state.rglob("manifest.parquet")}
        (folder / RUNNING).touch()
        (ingester.root / "gone.txt").unlink()
        recorder.sent.clear()
        (summary,) = (await ingester()).roots
        assert [uri.rpartition("/")[2] for uri in recorder.sent] == ["kept.txt"]
        assert (summary.deleted, summary.documents) == (1, 2)
        assert recorder.names() == {"kept.txt", "whole.txt"}

    async def test_a_fragment_that_no_row_knows_is_deleted(self, ingester, recorder):
        write(ingester.root, {"a.txt": "a", "b.txt": "b"})
        await ingester()
        ids = {d.source_uri.rpartition("/")[2]: i for i, d in recorder.documents.items()}
        recorder.fragments.add(ids["b.txt"])
        shutil.rmtree(ingester.state)
        (ingester.root / "b.txt").unlink()
        await ingester()
        assert recorder.names() == {"a.txt"}

    async def test_a_lost_manifest_costs_reading_only(self, ingester, recorder):
        write(ingester.root, {"a.txt": "a", "b.txt": "b"})
        await ingester()
        (ingester.root / "b.txt").unlink()
        shutil.rmtree(ingester.state)
        recorder.sent.clear()
        (summary,) = (await ingester()).roots
        assert recorder.names() == {"a.txt"}
        assert (summary.files_opened, summary.unchanged, summary.deleted) == (1, 1, 1)

    async def test_a_lost_manifest_does_not_lose_what_is_beneath_an_unreadable_folder(
        self, ingester, recorder, deny_listing
    ):
        write(ingester.root, {"d/a.txt": "a", "d/b.txt": "b", "z.txt": "z"})
        await ingester()
        shutil.rmtree(ingester.state)
        allow = deny_listing("d")
        (summary,) = (await ingester()).roots
        assert (summary.documents, summary.deleted) == (3, 0)
        allow()
        (ingester.root / "d/a.txt").unlink()
        (summary,) = (await ingester()).roots
        assert recorder.names() == {"b.txt", "z.txt"}
        assert (summary.documents, summary.deleted, summary.unchanged) == (2, 1, 2)

    @pytest.mark.parametrize("keeps", [False, True])
    async def test_what_only_the_index_knows_does_not_pile_up(
        self, ingester, deny_listing, monkeypatch, keeps
    ):
        write(ingester.root, {f"d/{number:03}.txt": "text" for number in range(200)})
        write(ingester.root, {"z.txt": "z"})
        await ingester()
        shutil.rmtree(ingester.state)
        if keeps:
            deny_listing("d")
        else:
            shutil.rmtree(ingester.root / "d")
        monkeypatch.setattr(held, "_AT_ONCE", 10)
        monkeypatch.setattr(outcomes, "_MOST_WAITING", 10)
        monkeypatch.setattr(manifest, "MAX_BUFFERED", 10)
        buffered = []
        original = manifest.Manifest.record

        def record(self, row):
            original(self, row)
            buffered.append(len(self._buffer))

        monkeypatch.setattr(manifest.Manifest, "record", record)
        (summary,) = (await ingester()).roots
        assert (summary.documents, summary.deleted) == ((201, 0) if keeps else (1, 200))
        assert len(buffered) > 200
        assert max(buffered) <= 30

    async def test_a_broken_manifest_is_a_lost_one(self, ingester):
        write(ingester.root, {"a.txt": "a"})
        await ingester()
        (manifest,) = ingester.state.rglob("manifest.parquet")
        manifest.write_bytes(manifest.read_bytes()[:100])
        (summary,) = (await ingester()).roots
        assert (summary.files_opened, summary.unchanged) == (1, 1)
        assert (await ingester()).roots[0].files_opened == 0

    async def test_a_manifest_of_another_index_is_not_believed(self, ingester, recorder):
        write(ingester.root, {"a.txt": "a"})
        await ingester()
        recorder.documents.clear()  # the collection was deleted and made again
        recorder.created_s += 60
        (summary,) = (await ingester()).roots
        assert summary.indexed == 1
        assert recorder.names() == {"a.txt"}

    async def test_a_row_of_a_killed_job_is_believed_only_if_the_index_has_it(
        self, ingester, recorder
    ):
        write(ingester.root, {"a.txt": "a", "b.txt": "b"})
        await ingester()
        folder = next(ingester.state.rglob("manifest.parquet")).parent
        (folder / RUNNING).write_bytes(b"")
        victim = next(i for i, d in recorder.documents.items() if d.source_uri.endswith("a.txt"))
        del recorder.documents[victim]
        (summary,) = (await ingester()).roots
        assert (summary.indexed, summary.unchanged) == (1, 1)
        assert recorder.names() == {"a.txt", "b.txt"}

    async def test_without_a_server_the_job_fails_in_bounded_time(self, ingester):
        write(ingester.root, {"a.txt": "a"})
        ingester.target = "127.0.0.1:1"
        with pytest.raises(Unavailable, match=r"no server answers at 127\.0\.0\.1:1; start one"):
            await ingester(stream={"max_attempts": 2})


class TestRebuild:
    async def test_a_rebuild_reads_everything_verifies_and_activates(self, ingester, recorder):
        write(ingester.root, {"a.txt": "a", "b.txt": "b", "c.txt": ""})
        await ingester()
        report = await ingester(rebuild=True, activate=True)
        assert recorder.openings[-1].index_version == 2
        assert (report.roots[0].files_opened, report.target.version) == (2, 2)
        assert recorder.expected == [2]
        assert recorder.activated == [2]
        assert report.is_activated
        assert report.to_json()["indexed"] == 2
        # The next run knows the new version as it is.
        assert (await ingester()).roots[0].files_opened == 0

    async def test_without_activate_or_soundness_the_old_version_answers(self, ingester, recorder):
        write(ingester.root, {"a.txt": "a"})
        assert not (await ingester(rebuild=True)).is_activated
        recorder.findings = ["one chunk is missing"]
        report = await ingester(rebuild=True, activate=True)
        assert report.findings == ("one chunk is missing",)
        assert recorder.activated == []

    async def test_old_manifests_that_stay_do_not_keep_a_version_back(
        self, ingester, recorder, monkeypatch, caplog
    ):
        write(ingester.root, {"a.txt": "a"})
        await ingester()
        await ingester(rebuild=True, activate=True)
        recorder.versions.remove(1)

        def refuse(_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(StateFolder, "delete_all", refuse)
        assert (await ingester(rebuild=True, activate=True)).is_activated
        assert "were not deleted: Permission denied" in caplog.text

    async def test_an_empty_version_is_not_activated(self, ingester, recorder):
        write(ingester.root, {"a.txt": "a"})
        await ingester()
        (ingester.root / "a.txt").write_bytes(bytes(100))
        report = await ingester(rebuild=True, activate=True)
        assert not report.is_activated
        assert "no documents" in report.findings[0]
        assert recorder.activated == []
