"""Answers at 80 columns, as a person sees them."""

from pathlib import Path

import pytest
from rich.cells import cell_len

from client.answers import (
    Duplicate,
    Explanation,
    Hit,
    ScoreParts,
    SearchResponse,
    Span,
    StageTiming,
)
from client.render import findings, search_answer
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
        "parts": ScoreParts(0.71, 1.0, 12.3, 0.83, 2, title=3.25, proximity=0.5),
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
    assert "hit  score  cosine  meaning   BM25  title  near  words  rank by meaning" in text
    assert "  1  0.934   0.710    1.000  12.30   3.25  0.50  0.830                2" in text
    assert "terms   job keytab" in text
    assert "score   0.5 · meaning + 0.5 · words" in text
    assert "meaning cosine, scaled over the candidates (min-max)" in text
    assert 'filter  {"lang":"en"}' in text
    assert "retrieve ████████████████████████ 5.25 ms" in text
    assert "embed    █████████▏               2.00 ms" in text


def test_the_parts_of_a_score_are_whole_on_a_narrow_terminal():
    text = lines(shown(search_answer(response(hit()), explain=True, width=50), width=50))
    assert "hit  score  cosine  meaning   BM25  words  meaning" in text
    assert "  1  0.934   0.710    1.000  12.30  0.830        2" in text


def test_the_cross_encoder_is_told_where_it_scored():
    parts = ScoreParts(0.5, 0.4, 9.0, 0.3, 7, fused=0.35, cross_encoder=-1.25)
    told = Explanation(
        ("job",), "cross_encoder", 0.612, 1.2, 0.75, "min_max", 200, "",
        title=2.5, proximity=0.5, statistics_chunks=56_789, corpus_statistics=True,
    )  # fmt: skip
    answer = response(hit(parts=parts), hit(rank=2), explanation=told, cross_encoded=1)
    text = lines(shown(search_answer(answer, explain=True, width=80)))
    assert "hit  score  cosine  meaning   BM25  title  near  words  cross  rank by meaning" in text
    assert "  1  0.934   0.500    0.400   9.00   0.00  0.00  0.300  -1.25                7" in text
    assert "  2  0.934   0.710    1.000  12.30   3.25  0.50  0.830                       2" in text
    assert "score   0.612 · meaning + 0.388 · words" in text
    assert text[
        (words := text.index("counted in 56,789 chunks of the index version")) - 2 : words
    ] == [
        "words   BM25 (k1 1.2, b 0.75, title weight 2.5, proximity weight 0.5), scaled",
        "        likewise",
    ]
    assert "order   the first by the cross-encoder, the others by the score" in text
    assert text[-1] == "index version 3 · 7.2 ms · 200 candidates · cross-encoder over 1"


@pytest.mark.parametrize("mode", ["dense", "lexical"])
def test_only_what_a_mode_ranks_by_is_explained(mode):
    told = Explanation(("job",), mode, 0.5, 1.2, 0.75, "min_max", 200, "", statistics_chunks=9)
    text = shown(search_answer(response(hit(), explanation=told), explain=True, width=80))
    assert ("BM25" in text) == ("counted in" in text) == (mode == "lexical")
    assert "score   " not in text
    assert "likewise" not in text


def test_frequencies_of_the_candidates_are_told_as_such():
    told = Explanation(("job",), "fused", 0.5, 1.2, 0.75, "min_max", 200, "", statistics_chunks=200)
    text = shown(
        search_answer(response(hit(), explanation=told), explain=True, width=100), width=100
    )
    assert "counted in the candidates, 200 chunks" in text


def elsewhere(name):
    return Duplicate(f"{name}:c", name * 32, f"file:///srv/lake/{name}.md", "", Span(0, 4))


def test_other_places_of_a_text_are_named_and_the_rest_is_counted():
    two = hit(duplicates=(elsewhere("a"), elsewhere("b"), elsewhere("a")))
    text = lines(shown(search_answer(response(two), explain=False, width=80, base=BASE)))
    assert text[3:5] == ["    also in: a.md", "             b.md"]
    many = hit(duplicates=tuple(map(elsewhere, "abcde")))
    text = lines(shown(search_answer(response(many), explain=False, width=80, base=BASE)))
    assert text[6] == "             … and 2 more"


def test_a_merged_passage_says_so():
    merged = hit(merged_chunk_ids=("x", "y", "z"))
    text = lines(shown(search_answer(response(merged), explain=False, width=80, base=BASE)))
    assert text[1] == "    runbooks/kerberos.md · 3 passages joined"


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
        duplicates=(Duplicate("c", "d", "hdfs://lake/" + "folder/" * 40, "", Span(0, 1)),),
        merged_chunk_ids=("c", "d"),
    )
    text = shown(search_answer(response(wide), explain=True, width=width), width=width)
    assert max(map(cell_len, lines(text))) <= min(width, 100)


def test_no_text_of_a_server_can_steer_the_terminal():
    evil = "\x1b]0;owned\x07\x9b2J[red]word[/red]"
    again = Duplicate("c", "d", f"hdfs://{evil}", evil, Span(0, 1))
    bad = hit(
        text=evil, title=evil, source_uri=f"hdfs://{evil}", highlights=(), duplicates=(again,)
    )
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
