"""Every operator on every type of value, against the real store."""

import operator
from collections.abc import Callable

import pytest

from query.chroma_index import ChromaIndex
from query.filter import parse_filter
from query.index_version import IndexVersion
from tests.integration.query.written_index import Document, WrittenIndex

DOCUMENTS = [
    Document(
        "file:///a",
        ["a"],
        title="Runbook",
        pages=[1],
        metadata={"lang": "en", "year": 2020, "tags": ["hdfs", "yarn"], "size": 0.5, "ok": True},
    ),
    Document(
        "file:///b",
        ["b"],
        title="Réplica",
        pages=[2],
        metadata={"lang": "de", "year": 2019, "tags": ["hdfs"], "size": 1.0, "ok": False},
    ),
    Document("file:///c", ["c"], metadata={"lang": "en", "year": 2021.0, "tags": ["kafka"]}),
    Document("file:///d", ["d"], metadata={"lang": 5, "year": "2020", "tags": "hdfs", "in": 1}),
]
LONGEST = " OR ".join(["a=1"] * 585)
DEEPEST = "(x=1 AND (x=1 OR " * 4 + 'lang = "en"' + "))" * 4


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('lang = "en"', "ac"),
        ('lang != "en"', "bd"),
        ("lang = 5", "d"),
        ("year = 2020", "a"),
        ('year = "2020"', "d"),
        ("year = 2021", "c"),
        ("year >= 2020", "ac"),
        ("year < 2020.5", "ab"),
        ("year > 2020", "c"),
        ("year <= 2019", "b"),
        ("NOT year <= 2019", "ac"),
        ("size = 1", "b"),
        ("size < 1", "a"),
        ("NOT size < 1", "b"),
        ("ok = true", "a"),
        ("ok != true", "bcd"),
        ('tags CONTAINS "hdfs"', "ab"),
        ('NOT tags CONTAINS "hdfs"', "cd"),
        ('tags = "hdfs"', "d"),
        ('lang IN ("de", "fr")', "b"),
        ('lang IN ("de", 5)', "bd"),
        ('lang NOT IN ("de", 5)', "ac"),
        ('NOT lang IN ("en")', "bd"),
        ("year IN (2019, 2021.0)", "bc"),
        ("`in` = 1", "d"),
        ("absent = 1", ""),
        ("absent != 1", "abcd"),
        ("page = 2", "b"),
        ('title = "Réplica"', "b"),
        ('source_uri IN ("file:///a", "file:///d")', "ad"),
        ('media_type = "text/plain"', "abcd"),
        (f'document_id = "{DOCUMENTS[2].id}"', "c"),
        ('lang = "en" AND year >= 2020 AND tags CONTAINS "hdfs"', "a"),
        ('NOT (lang = "en" AND year >= 2021)', "abd"),
        ('lang = "de" OR NOT (ok = true OR year > 2020 OR lang = 5)', "b"),
        (LONGEST, ""),
        (f"NOT ({LONGEST[:-7]})", "abcd"),
        ("a IN (" + ",".join([".5"] * 1_300) + ")", ""),
        (" OR ".join(["a!=.5"] * 455), "abcd"),
        (DEEPEST, ""),
        (f"NOT {DEEPEST}", "abcd"),
    ],
)
async def test_a_filter_finds_what_it_says(filled: WrittenIndex, text: str, found: str):
    pointer = await filled.registry.pointer("", "docs")
    assert pointer is not None
    vector = await filled.embedder.embed_query("a b c d")
    candidates = await ChromaIndex(filled.chroma).candidates(
        IndexVersion.active(pointer), vector, 10, parse_filter(text)
    )
    letters = {document.ids[0]: document.uri[-1] for document in DOCUMENTS}
    assert "".join(sorted(letters[id_] for id_ in candidates.ids)) == found


NUMBERS = [-3, -2, -1, 0, 1, 2, 3, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.0, -2.0]
COMPARED: dict[str, Callable[[float, float], bool]] = {
    "v = {}": operator.eq,
    "v != {}": operator.ne,
    "v < {}": operator.lt,
    "v <= {}": operator.le,
    "v > {}": operator.gt,
    "v >= {}": operator.ge,
    "v IN ({}, 7, 7.5)": operator.eq,
    "v NOT IN ({}, 7, 7.5)": operator.ne,
    "NOT v < {}": operator.ge,
    "NOT v IN ({})": operator.ne,
}


async def test_integers_and_fractions_compare_as_numbers(index: WrittenIndex):
    documents = [
        Document(f"file:///{number!r}", ["x"], metadata={"v": number}) for number in NUMBERS
    ]
    version = IndexVersion.active(await index.holding(*documents))
    vector = await index.embedder.embed_query("x")
    source = ChromaIndex(index.chroma)
    names = {document.ids[0]: document.uri for document in documents}
    for form, holds in COMPARED.items():
        for value in (1.5, -1.5, 0.5, -0.5, 2.0, 2, -2, 0):
            tree = parse_filter(form.format(value))
            candidates = await source.candidates(version, vector, 99, tree)
            found = {names[id_] for id_ in candidates.ids}
            right = {f"file:///{number!r}" for number in NUMBERS if holds(number, value)}
            assert found == right, form.format(value)


@pytest.fixture
async def filled(index: WrittenIndex) -> WrittenIndex:
    await index.holding(*DOCUMENTS)
    return index
