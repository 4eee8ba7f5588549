"""Collections, versions and verifications at 80 columns, as a person sees them."""

from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len

from client.inspection import Inspection
from client.manifests import Compared
from client.quantities import ago, number, rate
from client.render_collections import collection_detail, collection_list
from client.render_verification import MOST_FAULTS, MOST_MISSES, inspection, verification
from client.verification import DocumentFault, GoldenMiss, Repaired, Verification
from client.versions import (
    ActivePointer,
    Build,
    Collection,
    Embedder,
    Forced,
    GoldenScore,
    IndexVersion,
    Verdict,
    WordStatistics,
)
from common.verification import ManifestReport
from tests.unit.client.terminal import lines, shown

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
SCORE = GoldenScore(200, 10, 0.9, 0.842, 0.951, 7)
EVIL = "\x1b]0;owned\x07\x9b2J[red]word[/red]"


@pytest.fixture(autouse=True)
def in_utc(monkeypatch):
    """Times are shown in the zone of the process."""
    import time  # noqa: PLC0415  # only here

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def version(number_=7, state="active", **changed):
    fields = {
        "documents": 1234,
        "chunks": 56789,
        "created_at": NOW - timedelta(hours=4),
        "activated_at": None,
        "store_collection": f"default.docs.v{number_:06d}",
        "builder": "ann@lake, process 4",
    }
    embedder = Embedder("mini", "0" * 64, 384, "mean", 256, "int8")
    return IndexVersion(number_, state, embedder, "sentence", 256, 32, **{**fields, **changed})


def build(number_=9, **changed):
    fields = {
        "builder": "eve@lake, process 5",
        "since": NOW - timedelta(minutes=5),
        "documents": 12345,
        "chunks": 60123,
        "documents_per_s": 412.3,
        "reported_at": NOW - timedelta(seconds=2),
        "ttl_s": 15,
    }
    return Build(number_, **{**fields, **changed})


def collection(*versions, name="docs", under_way=None, active=7):
    pointer = ActivePointer(active, 12, NOW - timedelta(hours=3), 6) if active else None
    return Collection("default", name, pointer, versions, under_way)


def text_of(renderable, width=80):
    return lines(shown(renderable, width=width))


def test_a_collection_has_one_line_and_a_build_under_way_its_own():
    told = collection_list(
        [
            collection(version(6, "retired"), version(), version(9, "building"), under_way=build()),
            collection(version(1, "building", documents=None, chunks=None), name="b", active=0),
        ],
        now=NOW,
    )
    assert text_of(told) == [
        "collection  active  documents  chunks  kept  since",
        "docs             7      1,234  56,789     3  3 h ago",
        "b             none          -       -     1  -",
        "",
        "docs: version 9 is being built, 12,345 documents, 60,123 chunks, 412/s",
        "  by eve@lake, process 5",
        "b: the build of version 1 was abandoned",
    ]


def test_where_nobody_builds_there_is_only_the_table():
    assert len(text_of(collection_list([collection(version())], now=NOW))) == 2
    assert "sluice ingest" in shown(collection_list([]))


def test_a_collection_is_shown_with_the_life_of_its_versions_newest_first():
    short = Verdict(False, NOW, ("golden queries score 0.8420, below 0.9",), SCORE)  # noqa: FBT003  # as its field
    passed = Verdict(True, NOW - timedelta(hours=3), (), None)  # noqa: FBT003  # as its field
    told = collection_detail(
        collection(
            version(4, "failed", failure="the builder was lost", builder="", retired_at=NOW),
            version(5, "building", documents=None, chunks=None),
            version(
                6,
                "retired",
                activated_at=NOW - timedelta(days=2),
                retired_at=NOW - timedelta(days=1),
            ),
            version(
                activated_at=NOW - timedelta(hours=3),
                verdict=passed,
                forced=Forced("bob@lake", NOW),
            ),
            version(8, "ready", verdict=short),
            version(9, "building", documents=None, chunks=None),
            under_way=build(),
        ),
        now=NOW,
    )
    embedder = "            embedder   mini int8, chunks of 256 tokens that share 32"
    created = "            created    2026-01-01 23:04 by ann@lake, process 4"
    assert text_of(told) == [
        "docs  version 7 is active (generation 12)",
        "",
        "Version 9 is being built: 12,345 documents, 60,123 chunks, 412/s",
        "  by eve@lake, process 5, since 2026-01-02 02:59; last heard of 2 s ago",
        "",
        "version 9   building   not counted yet",
        created,
        embedder,
        "",
        "version 8   ready      1,234 documents, 56,789 chunks",
        created,
        "            verified   2026-01-02 03:04, fell short",
        "                       golden queries score 0.8420, below 0.9",
        "            golden     0.842 over 200 queries, 0.900 wanted; version 7 had 0.951",
        embedder,
        "",
        "version 7   active     1,234 documents, 56,789 chunks",
        created,
        "            activated  2026-01-02 00:04",
        "            forced     2026-01-02 03:04 by bob@lake",
        "            verified   2026-01-02 00:04, passed",
        embedder,
        "",
        "version 6   retired    1,234 documents, 56,789 chunks",
        created,
        "            activated  2025-12-31 03:04",
        "            retired    2026-01-01 03:04",
        embedder,
        "",
        "version 5   building   not counted yet",
        "                       abandoned; it goes by itself, or at once with",
        "                       `sluice collections delete docs --version 5`",
        created,
        embedder,
        "",
        "version 4   failed     1,234 documents, 56,789 chunks",
        "            because    the builder was lost",
        "            created    2026-01-01 23:04",
        "            ended      2026-01-02 03:04",
        embedder,
    ]


@pytest.mark.parametrize(("chunks", "of_all"), [(56_789, "56,789"), (56_000, "56,000 of 56,789")])
def test_what_is_known_of_the_words_is_told(chunks, of_all):
    words = WordStatistics(chunks, 12_345, 999, 9, 1, "0" * 64, NOW)
    told = text_of(collection_detail(collection(version(word_statistics=words)), now=NOW))
    line = f"words      12,345 in {of_all} chunks, 2026-01-02 03:04"
    assert told[-2].strip() == line


def fault(kind, name="a", surplus=0):
    return DocumentFault(name * 32, f"hdfs://lake/{name}.md", "", kind, surplus)


def examined(*, passed=False, findings=(), faults=(), golden=None, misses=()):
    return Verification(version(), passed, findings, faults, golden, misses)


def test_faults_are_told_by_document_and_no_finding_twice():
    found = examined(
        findings=(
            "holds 2 complete documents, expected 3",
            f"document {'a' * 32} (hdfs://lake/a.md): no revision of it is complete",
            'golden query "why" does not find b.md',
        ),
        faults=(fault("incomplete"), fault("surplus", "b", 4)),
        golden=SCORE,
        misses=(GoldenMiss("why", ("b.md",), (), active_finds=True),),
    )
    assert text_of(verification(found, "docs")) == [
        "version 7 of docs  active, 1,234 documents, 56,789 chunks",
        "holds 2 complete documents, expected 3",
        "",
        "fault       surplus  document",
        "incomplete        0  hdfs://lake/a.md",
        "surplus           4  hdfs://lake/b.md",
        "incomplete: lacks its head or other chunks; must be sent again",
        "surplus: complete, with chunks of other states besides; a repair deletes them",
        "",
        "golden queries: 0.842 over 200 queries, 0.900 wanted; version 7 had 0.951",
        "“why”",
        "  missing  b.md",
        "  found    nothing",
        "           the active version finds all it should",
    ]


def test_findings_that_no_table_shows_are_all_told():
    found = examined(findings=("document d (x): y", 'golden query "why" does not find b.md'))
    assert text_of(verification(found, "docs"))[1:] == [
        "every document is complete",
        *found.findings,
    ]


def test_long_lists_are_cut_and_the_rest_is_counted():
    many = examined(
        faults=tuple(fault("surplus") for _ in range(MOST_FAULTS + 3)),
        misses=tuple(
            GoldenMiss("why", tuple("abcde"), (), active_finds=False)
            for _ in range(MOST_MISSES + 1)
        ),
    )
    told = text_of(verification(many, "docs"))
    assert "… and 3 documents more, in --json" in told
    assert "… and 1 query more, in --json" in told
    assert "           … and 2 more" in told
    assert sum(line.startswith("surplus ") for line in told) == MOST_FAULTS


def looked_at(found, *, repaired=None, report=None, note="", failed=False, repair=False, now=None):
    compared = Compared(report, note, failed)
    result = Inspection(found, repaired, compared, now or found)
    return text_of(inspection(result, "docs", repair=repair))


def test_manifests_that_agree_are_told_in_a_line_and_nothing_is_advised():
    told = looked_at(examined(passed=True), report=ManifestReport(2, 1300, (), 0, 0, 0))
    assert told[1:] == [
        "every document is complete",
        "manifests: 1,300 files of 2 roots agree with the index",
    ]


def test_manifests_that_are_not_here_are_told_in_a_line():
    told = looked_at(examined(passed=True), note="none of version 7 is known on this machine")
    assert told[-1] == "manifests: not compared: none of version 7 is known on this machine"


def test_manifests_that_disagree_are_told_with_what_mends_it():
    report = ManifestReport(1, 9, ("hdfs://lake/a.md: not in the index",), 1, 2, 0)
    told = looked_at(examined(passed=True), report=report)
    assert told[-5:] == [
        "manifests: 9 files of 1 root; the index lacks 1 document, 2 documents of the",
        "index in no manifest",
        "  hdfs://lake/a.md: not in the index",
        "",
        "→ `sluice collections verify docs --version 7 --repair` mends this",
    ]


def test_after_a_repair_the_next_ingest_is_told():
    report = ManifestReport(1, 9, (), 0, 0, 1)
    told = looked_at(
        examined(faults=(fault("incomplete"),)),
        repaired=Repaired(12, (fault("incomplete"),), 1),
        report=report,
        repair=True,
        now=examined(passed=True),
    )
    assert told[:5] == [
        "fault       surplus  document",
        "incomplete        0  hdfs://lake/a.md",
        "incomplete: lacks its head or other chunks; must be sent again",
        "repaired: 12 chunks deleted; 1 document must be sent again",
        "",
    ]
    assert told[-3:] == [
        "manifests: 9 files of 1 root; 1 file to be read again",
        "",
        "→ the next `sluice ingest` of these roots into docs mends the rest",
    ]


def test_without_manifests_whoever_sent_a_document_must_send_it_again():
    told = looked_at(
        examined(faults=(fault("incomplete"),)),
        repaired=Repaired(0, (fault("incomplete"),), 1),
        note="not here",
        repair=True,
        now=examined(passed=True),
    )
    assert "→ send these documents again" in told[-2]


def test_a_repair_without_faults_says_so():
    told = looked_at(examined(passed=True), repair=True, note="not here")
    assert told[:2] == [
        "the store holds no faults",
        "nothing in the store was to be mended",
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_is_wider_than_the_terminal_and_nothing_can_steer_it(width):
    bad = version(
        builder=EVIL,
        failure=EVIL,
        forced=Forced(EVIL, NOW),
        verdict=Verdict(False, NOW, (EVIL * 9,), SCORE),  # noqa: FBT003  # as its field
    )
    found = Verification(
        bad,
        False,  # noqa: FBT003  # as its field
        (EVIL,),
        (DocumentFault(EVIL, EVIL * 9, EVIL, "incomplete", 0),),
        SCORE,
        (GoldenMiss(EVIL * 9, (EVIL,), (EVIL,), active_finds=False),),
    )
    report = ManifestReport(1, 1, (EVIL * 9,), 1, 1, 1)
    holding = collection(bad, name=EVIL, under_way=build(builder=EVIL))
    for told in (
        collection_list([holding]),
        collection_detail(holding),
        inspection(
            Inspection(found, Repaired(1, (), 1), Compared(report), found), EVIL, repair=True
        ),
        inspection(Inspection(found, None, Compared(None, EVIL), found), EVIL, repair=False),
    ):
        text = shown(told, width=width)
        assert max(map(cell_len, lines(text))) <= width
        assert not set(text) & set("\x1b\x07\x9b")
        assert "[red]word[/red]" in "".join(text.split())


def test_quantities_read_well():
    assert [ago(NOW - timedelta(seconds=s), NOW) for s in (-5, 59, 60, 3600, 86_400 * 3)] == [
        "0 s ago",
        "59 s ago",
        "1 min ago",
        "1 h ago",
        "3 d ago",
    ]
    assert [number(n, "query") for n in (0, 1, 2000)] == ["0 queries", "1 query", "2,000 queries"]
    assert [rate(per_s) for per_s in (0, 9.94, 10, 12345.6)] == [
        "0.0/s",
        "9.9/s",
        "10/s",
        "12,346/s",
    ]
