"""The bytes of a table of words: the same for both services, and nothing else is taken for them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.word_table import TERM_BYTES, UnreadableTable, WordTable, decode, encode

HASHES = st.sets(st.integers(1, 2**32 - 1), max_size=200).map(sorted)


def table(hashes: list[int], frequencies: list[int] | None = None) -> WordTable:
    return WordTable(
        analysis=1,
        chunks=2**40,
        text_words=2**50,
        title_words=7,
        hashes=np.array(hashes, np.uint32),
        frequencies=np.array(frequencies or [1] * len(hashes), np.uint32),
    )


@given(HASHES, st.integers(0, 2**32 - 1))
def test_a_table_is_read_as_it_was_written(hashes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    frequencies = rng.integers(1, 2**32, len(hashes)).tolist()
    written = table(hashes, frequencies)
    read = decode(encode(written), max_terms=len(hashes))
    assert (read.analysis, read.chunks, read.text_words, read.title_words) == (
        1,
        2**40,
        2**50,
        7,
    )
    assert read.hashes.tolist() == hashes
    assert read.frequencies.tolist() == frequencies
    assert {read.hashes.dtype, read.frequencies.dtype} == {np.dtype(np.uint32)}


def test_the_bytes_of_a_table_are_fixed() -> None:
    blob = encode(table([1, 2**31, 2**32 - 1], [3, 2, 1]))
    plain = hashlib.sha256(blob[:44]).hexdigest()  # what is compressed depends on zlib
    assert blob[:4] == b"SLWT"
    assert (
        plain
        == hashlib.sha256(
            b"SLWT"
            + bytes.fromhex("01000000 01000000 0000000000010000 0000000000000400")
            + bytes.fromhex("0700000000000000 0300000000000000")
        ).hexdigest()
    )


def test_an_ordinary_table_takes_less_than_three_bytes_a_term() -> None:
    rng = np.random.default_rng(5)
    hashes = np.unique(rng.integers(1, 2**32, 100_000, dtype=np.uint64)).tolist()
    frequencies = np.minimum(rng.zipf(1.6, len(hashes)), 10**6).tolist()
    blob = encode(table(hashes, frequencies))
    assert len(blob) < len(hashes) * 3 < len(hashes) * TERM_BYTES


@given(HASHES, st.data())
def test_what_is_damaged_is_refused_or_read_as_a_whole_table(
    hashes: list[int], data: st.DataObject
) -> None:
    blob = bytearray(encode(table(hashes)))
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= data.draw(st.integers(1, 255))
    try:
        read = decode(bytes(blob), max_terms=len(hashes))
    except UnreadableTable:
        return
    assert len(read.hashes) == len(read.frequencies) == len(hashes)
    assert (np.diff(read.hashes.astype(np.int64), prepend=0) > 0).all()


@given(HASHES.filter(bool), st.integers(1, 40))
def test_what_is_cut_or_longer_is_refused(hashes: list[int], cut: int) -> None:
    blob = encode(table(hashes))
    for other in (blob[:-cut], blob[: 44 - cut], blob + b"\0" * cut):
        with pytest.raises(UnreadableTable):
            decode(other, max_terms=len(hashes))


def test_more_terms_than_expected_are_refused_before_they_take_memory() -> None:
    blob = encode(table(list(range(1, 1_000))))
    with pytest.raises(UnreadableTable, match="999 terms"):
        decode(blob, max_terms=998)


@pytest.mark.parametrize("frequencies", [[0, 1], [1, 0]])
def test_a_frequency_of_zero_is_refused(frequencies: list[int]) -> None:
    with pytest.raises(UnreadableTable):
        decode(encode(table([5, 6], frequencies)), max_terms=2)


@pytest.mark.parametrize("hashes", [[0, 1], [2, 2], [3, 2]])
def test_hashes_out_of_order_are_refused(hashes: list[int]) -> None:
    with pytest.raises(UnreadableTable):
        decode(encode(table(hashes)), max_terms=2)
