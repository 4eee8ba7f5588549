"""Answers at 80 columns, as a person sees them."""

from pathlib import Path

import pytest
from rich.cells import cell_len

from client.answers import (
    Explanation,
    Hit,
    ScoreParts,
    SearchResponse,
    Span,
    StageTiming,
)
from client.render import findings, measured, search_answer
from common.doctor import Check
from tests.unit.client.terminal import lines, shown

BASE = Path("/srv/lake")
TEXT = "Pass a keytab\nso that the job renews its ticket."


def hit(**changed):
    fields = {
        "rank": 1,
        "score": 0.9342,
        "document_id": "d" * 32,
        "chunk_id": "c",
        "source_uri": "file:///srv/lake/runbooks/kerberos.md",
        "title": "Kerberos for long jobs",
        "media_type": "text/markdown",
        "document_version": 1,
        "page": 0,
        "span": Span(0, len(TEXT)),
        "text": TEXT,
        "highlights": (Span(7, 13), Span(26, 29)),
        "parts": ScoreParts(0.71, 1.0, 12.3, 0.83, 2),
    }
    return Hit(**{**fields, **changed})


def response(*hits, **changed):
    fields = {
        "hits": hits,
        "index_version": 3,
        "generation": 7,
        "degraded": (),
        "timings": (StageTiming("embed", 2.0), StageTiming("retrieve", 5.25)),
        "explanation": Explanation(
            ("job", "keytab"), "fused", 0.5, 1.2, 0.75, "min_max", 200, '{"lang":"en"}'
        ),
    }
    return SearchResponse(**{**fields, **changed})


def test_an_answer_reads_well_at_80_columns():
    answer = search_answer(
        response(hit(), hit(rank=2, score=0.5, page=3)), explain=False, width=80, base=BASE
    )
    assert lines(shown(answer)) == [
        "1.  Kerberos for long jobs                                                 0.934",
        "    runbooks/kerberos.md",
        "    Pass a keytab so that the job renews its ticket.",
        "",
        "2.  Kerberos for long jobs                                                 0.500",
        "    runbooks/kerberos.md · p. 3",
        "    Pass a keytab so that the job renews its ticket.",
        "",
        "index version 3 · 7.2 ms · 200 candidates · fused",
    ]


def test_the_query_words_stand_out_on_a_terminal_and_only_there():
    answer = search_answer(response(hit()), explain=False, width=80, base=BASE)
    assert "\x1b[1;33mkeytab\x1b[0m" in shown(answer, color=True)
    assert "\x1b" not in shown(answer)


def test_explain_shows_the_parts_the_plan_and_the_stages():
    text = lines(shown(search_answer(response(hit()), explain=True, width=80, base=BASE)))
    assert "hit  score  cosine  meaning   BM25  words  rank by meaning" in text
    assert "  1  0.934   0.710    1.000  12.30  0.830                2" in text
    assert "terms   job keytab" in text
    assert "score   0.5 · meaning + 0.5 · words (BM25 k1 1.2, b 0.75; min-max)" in text
    assert 'filter  {"lang":"en"}' in text
    assert "retrieve ████████████████████████ 5.25 ms" in text
    assert "embed    █████████▏               2.00 ms" in text


def test_the_parts_of_a_score_are_whole_on_a_narrow_terminal():
    text = lines(shown(search_answer(response(hit()), explain=True, width=50), width=50))
    assert "hit  score  cosine  meaning   BM25  words  meaning" in text
    assert "  1  0.934   0.710    1.000  12.30  0.830        2" in text


def test_why_an_answer_is_less_than_it_could_be_is_said_in_words():
    text = shown(
        search_answer(response(hit(), degraded=("rerank_skipped",)), explain=False, width=80)
    )
    assert "note: time was short: ordered by meaning alone" in text


def test_no_hits_is_said():
    assert "No passage was found" in shown(search_answer(response(), explain=False, width=80))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_is_wider_than_the_terminal_or_than_a_person_reads(width):
    wide = hit(
        title="title " * 40,
        source_uri="hdfs://lake/" + "folder/" * 40 + "file.md",
        text="word " * 900 + "短い文章です。" * 90,
        highlights=(Span(4500, 4504),),
    )
    text = shown(search_answer(response(wide), explain=True, width=width), width=width)
    assert max(map(cell_len, lines(text))) <= min(width, 100)


def test_no_text_of_a_server_can_steer_the_terminal():
    evil = "\x1b]0;owned\x07\x9b2J[red]word[/red]"
    bad = hit(text=evil, title=evil, source_uri=f"hdfs://{evil}", highlights=())
    told = Explanation((evil,), "fused", 0.5, 1.2, 0.75, "min_max", 1, evil)
    answer = search_answer(response(bad, explanation=told), explain=True, width=80)
    text = shown(answer)
    assert not set(text) & set("\x1b\x07\x9b")
    assert "[red]word[/red]" in text


def test_a_fault_stands_above_its_cure():
    text = lines(
        shown(
            findings(
                [
                    Check("python", ok=True, detail="3.11"),
                    Check("server", ok=False, detail="gone", cure="start it"),
                ]
            )
        )
    )
    assert text == ["ok     python  3.11", "fault  server  gone", "               → start it"]


def test_figures_have_a_line_a_mode():
    text = lines(shown(measured({"dense": {"ndcg@10": 0.6449, "p50_ms": 12.34}})))
    assert [line.split() for line in text] == [
        ["mode", "ndcg@10", "p50_ms"],
        ["dense", "0.645", "12.3"],
    ]
