"""Stems are exactly those of Snowball's own English stemmer, and share their words' beginnings."""

from __future__ import annotations

import random
import re
import string
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import snowballstemmer

from tests.unit.rerank_zig import reference

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rerank_zig import RerankLibrary

SAMPLES = Path(__file__).parents[3] / "samples"
ENDINGS = """
s us ss sses ied ies ed edly eed eedly ing ingly ying bling ating izing tional ational ation ization
izer ator alism aliti alli fulness ousli ousness iveness iviti biliti bli ogi ogist fulli lessli li
logi icate ative alize iciti ical ful ness ic ance ence able ible ate ive ize iti al ism sion tion
er ous ant ent ment ement e l ll y ly ally enci anci abli entli
"""
SPECIAL = """
skis skies idly gently ugly early only singly sky news howe atlas cosmos bias andes dying lying
tying vying evening canning inning earring herring outing succeed proceed exceed succeeded proceedly
arsenal commune communism emergency generate international later lateral organ organize past pasted
pasting pastes university universal adding egging offing ebbed
"""


def prose_words() -> set[str]:
    """Every word of the descriptions and licences of the installed packages."""
    found: set[str] = set()
    for distribution in distributions():
        texts = [distribution.read_text("METADATA") or ""]
        for file in distribution.files or ():
            if re.search(r"licen[cs]e|readme|notice|changelog", file.name, re.IGNORECASE):
                path = Path(file.locate())
                if path.is_file():
                    texts.append(path.read_bytes().decode("utf-8", "replace"))
        for text in texts:
            found.update(re.findall(r"[a-z]{1,64}", text.lower()))
    return found


def assert_stems(library: RerankLibrary, words: Iterable[str]) -> int:
    stemmer = snowballstemmer.stemmer("english")
    distinct = sorted({word for word in words if word not in reference.STOP_WORDS})
    for word in distinct:
        expected = stemmer.stemWord(word)
        assert library.analyze(word) == [expected], word
    return len(distinct)


def test_special_words(library: RerankLibrary) -> None:
    assert_stems(library, SPECIAL.split())


def test_words_of_prose(library: RerankLibrary) -> None:
    assert assert_stems(library, prose_words()) > 5_000


@pytest.mark.parametrize("seed", range(4))
def test_random_words(library: RerankLibrary, seed: int) -> None:
    rng = random.Random(seed)
    alphabets = (string.ascii_lowercase, "aeiouylstbc", "yyaeinglst")
    endings, special = ENDINGS.split(), SPECIAL.split()
    words = []
    for _ in range(10_000):
        stem = "".join(rng.choices(rng.choice(alphabets), k=rng.randint(0, 6)))
        words.append(stem + "".join(rng.choices(endings, k=rng.randint(0, 2))))
        words.append(rng.choice(special) + rng.choice(endings))
    assert_stems(library, (word for word in words if word))


def test_a_stem_shares_all_but_its_last_letter_with_its_words() -> None:
    """By which the native library rules words out that it never stems."""
    stemmer = snowballstemmer.stemmer("english")
    files = [path for path in SAMPLES.rglob("*") if path.is_file()]
    samples = " ".join(path.read_bytes().decode("utf-8", "replace") for path in files)
    known = prose_words() | set(re.findall(r"[a-z]{1,64}", samples.lower())) | set(SPECIAL.split())
    for word in known:
        stem = stemmer.stemWord(word)
        shared = len(stem) if len(stem) <= 2 else len(stem) - 1
        exception = re.fullmatch("[a-z]ie", stem) and re.fullmatch("[a-z]ying", word)
        assert word.startswith(stem[:shared]) or (exception and word[0] == stem[0]), word
