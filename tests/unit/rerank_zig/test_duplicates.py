"""Which texts nearly repeat others: the native groups are those of sets of shingles in Python."""

from __future__ import annotations

import ctypes
import math
import random
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from common.errors import InvalidArgument
from rerank_zig import layout
from rerank_zig.binding import DEFAULT_PATH
from rerank_zig.layout import Status
from tests.unit.rerank_zig.reference import simple_lower, words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rerank_zig import RerankLibrary

PROSE = """
the namenode standby fails over and its journal is replayed by an observer with a café naïve ΟΔΟΣ
Москва block report lease recovery quota 語 x² İstanbul Ⱥb 42 nn-ha-42 blk_1073741825 0x7f ٣٤
"""
# About as long as what is read in one piece, beyond ASCII until they are in lower case, and others.
ODD = ["q" * 15, "q" * 16, "q" * 17, "z" * 70 + "7", "\u212aelvin", "kelvin", "d\u0130n", "din"]
VOCABULARY = [*PROSE.split(), *ODD]
BREAKS = [" ", " ", " ", "\n", "—", "-", "_", ", ", " 😀 ", "\u00a0"]
LINE = b"the namenode failed over and its journal was replayed without any loss by the observer "


def shape(text: bytes) -> tuple[set[tuple[str, ...]], list[str]]:
    """The shingles of a text, and its words with digits, after include/sluice_rerank.h."""
    decoded = text.decode("utf-8", "replace")
    found = ["".join(map(simple_lower, decoded[start:end])) for start, end in words(decoded)]
    digits = [word for word in found if any(unicodedata.category(c)[0] == "N" for c in word)]
    if len(found) < 3:
        return {tuple(found) or (repr(text),)}, digits
    return set(zip(found, found[1:], found[2:], strict=False)), digits


def groups(texts: Sequence[bytes], resemblance: float) -> list[int]:
    leaders: list[int] = []
    shapes = [shape(text) for text in texts]
    for own, (shingles, digits) in enumerate(shapes):
        for other in sorted(set(leaders)):
            others, other_digits = shapes[other]
            shared = len(shingles & others)
            if digits == other_digits and shared >= resemblance * len(shingles | others):
                leaders.append(other)
                break
        else:
            leaders.append(own)
    return leaders


def random_text(rng: random.Random) -> list[str]:
    return rng.choices(VOCABULARY, k=rng.choice([0, 1, 2, 3, 4, 12, 40, 150]))


def spelt(rng: random.Random, text: list[str]) -> bytes:
    cases: list[Callable[[str], str]] = [str.upper, str.lower, str]
    case = rng.choice(cases)
    return "".join(case(word) + rng.choice(BREAKS) for word in text).encode()


def random_texts(rng: random.Random) -> list[bytes]:
    """Texts, nearly the same ones again, and bytes that are none."""
    originals = [random_text(rng) for _ in range(rng.randint(1, 12))]
    texts = []
    for _ in range(rng.choice([0, 1, 5, 50])):
        # A set holds a shingle once, however often the text says it.
        text = rng.choice(originals) * rng.choice([1, 1, 1, 3])
        for _ in range(rng.choice([0, 0, 1, 1, 2, 10])):
            if text:
                place = rng.randrange(len(text))
                text[place : place + rng.randint(0, 2)] = rng.choices(
                    VOCABULARY, k=rng.randint(0, 2)
                )
        encoded = bytearray(spelt(rng, text))
        if encoded and rng.random() < 0.1:
            encoded[rng.randrange(len(encoded))] = rng.randrange(256)
        texts.append(bytes(encoded))
    texts += [rng.randbytes(rng.randint(0, 40)) for _ in range(rng.randint(0, 5))]
    rng.shuffle(texts)
    return texts


@pytest.mark.parametrize("first_seed", range(0, 300, 50))
def test_groups_agree_with_the_reference(library: RerankLibrary, first_seed: int) -> None:
    repeated = alone = 0
    for seed in range(first_seed, first_seed + 50):
        rng = random.Random(seed)
        texts = random_texts(rng)
        resemblance = rng.choice([0.9, 0.9, 0.5, 1.0, 1e-9, rng.random() or 1.0])
        found = library.group_duplicates(texts, resemblance)
        assert found.dtype == np.int32
        expected = groups(texts, resemblance)
        assert found.tolist() == expected, f"seed {seed}"
        repeated += sum(leader != own for own, leader in enumerate(expected))
        alone += sum(leader == own for own, leader in enumerate(expected))
    assert min(repeated, alone) > 100, "the cases must show both"


@pytest.mark.parametrize("seed", range(3))
def test_among_thousands_that_share_most_words_none_is_missed(
    library: RerankLibrary, seed: int
) -> None:
    rng = random.Random(seed)
    common = [f"w{chr(97 + n % 26)}{'x' * (n // 26)}" for n in range(100)]
    texts = []
    for _ in range(300):
        text = list(common)
        for place in rng.sample(range(100), rng.randint(0, 4)):
            text[place] = rng.choice(common)
        texts.append(" ".join(text).encode())
    assert library.group_duplicates(texts, 0.9).tolist() == groups(texts, 0.9)


def test_log_lines_about_other_things_are_no_duplicates(library: RerankLibrary) -> None:
    texts = [
        LINE * 10 + b"NN-HA-42",
        LINE * 10 + b"NN-HA-43",
        LINE.title() * 10 + b"(nn ha 42)",
        b"Request 7 to 8. " + LINE * 10,
        b"Request 8 to 7. " + LINE * 10,
    ]
    assert library.group_duplicates(texts, 0.5).tolist() == [0, 1, 0, 3, 4]


def test_as_many_as_the_contract_says_and_no_more(library: RerankLibrary) -> None:
    texts = [b"%d" % (number // 2) for number in range(layout.MAX_GROUPED_TEXTS)]
    expected = [number - number % 2 for number in range(layout.MAX_GROUPED_TEXTS)]
    assert library.group_duplicates(texts, 0.9).tolist() == expected
    with pytest.raises(InvalidArgument, match="4096") as caught:
        library.group_duplicates([*texts, b""], 0.9)
    assert caught.value.field == "texts"
    largest = b" " * layout.MAX_GROUPED_BYTES
    assert library.group_duplicates([largest], 0.9).tolist() == [0]
    with pytest.raises(InvalidArgument, match="67108864"):
        library.group_duplicates([largest, b"x"], 0.9)


@pytest.mark.parametrize("resemblance", [0.0, -1.0, 1.1, math.nan, math.inf])
def test_a_resemblance_must_be_one(library: RerankLibrary, resemblance: float) -> None:
    with pytest.raises(InvalidArgument) as caught:
        library.group_duplicates([b"x"], resemblance)
    assert caught.value.field == "resemblance"


def test_each_misuse_has_its_status() -> None:
    library = ctypes.CDLL(str(DEFAULT_PATH))
    layout.declare(library)
    offsets = np.array([0, 3, 6], np.uint32)
    leaders = np.full(3, -7, np.int32)

    def call(leaders_at: Any = leaders.ctypes.data, capacity: int = 2, **fields: Any) -> int:
        texts = layout.Texts(b"abcABC", 6, offsets.ctypes.data, 3)
        for name, value in fields.items():
            setattr(texts, name, value)
        code = library.sluice_rerank_group_duplicates(texts, 0.9, leaders_at, capacity)
        if code != Status.OK:
            assert leaders.tolist() == [-7] * 3, "a refused call writes nothing"
        return int(code)

    assert library.sluice_rerank_group_duplicates(None, 0.9, None, 0) == Status.NULL_POINTER
    assert call(bytes=None) == Status.NULL_POINTER
    assert call(offsets=None) == Status.NULL_POINTER
    assert call(leaders_at=None) == Status.NULL_POINTER
    assert call(capacity=1) == Status.BUFFER_TOO_SMALL
    assert call(byte_count=5) == Status.OFFSET_OUT_OF_RANGE
    assert call(byte_count=2**64 - 1) == Status.TOO_MANY_TEXTS_TO_GROUP
    assert call(offset_count=0) == Status.LENGTH_MISMATCH
    assert call(offset_count=2**64 - 1) == Status.TOO_MANY_TEXTS_TO_GROUP
    offsets[1] = 7
    assert call() == Status.OFFSETS_NOT_MONOTONE
    offsets[1] = 3
    assert call(leaders_at=None, capacity=0, offset_count=1) == Status.OK
    assert leaders.tolist() == [-7] * 3
    assert call() == Status.OK
    assert leaders.tolist() == [0, 0, -7], "never past the texts"


def test_many_threads_at_once(library: RerankLibrary) -> None:
    cases = [random_texts(random.Random(seed)) for seed in range(40)]
    expected = [library.group_duplicates(texts, 0.9).tolist() for texts in cases]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = pool.map(lambda texts: library.group_duplicates(texts, 0.9).tolist(), cases)
            assert list(found) == expected
