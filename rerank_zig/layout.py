"""The structs, functions and statuses of include/sluice_rerank.h as ctypes sees them.

It must say exactly what the header says, and never more: no check and no conversion lives here.
"""

from __future__ import annotations

import ctypes
import enum

ABI_VERSION = 3
MAX_CANDIDATES = 1 << 20
MAX_TEXT_BYTES = 1 << 31
MAX_GROUPED_TEXTS = 1 << 12
MAX_GROUPED_BYTES = 1 << 26
MAX_QUERY_BYTES = 1 << 20
MAX_QUERY_TERMS = 1024


class Status(enum.IntEnum):
    """What every function answers."""

    OK = 0
    NULL_POINTER = 1
    LENGTH_MISMATCH = 2
    OFFSETS_NOT_MONOTONE = 3
    OFFSET_OUT_OF_RANGE = 4
    SIMILARITY_NOT_FINITE = 5
    ALPHA_OUT_OF_RANGE = 6
    K1_OUT_OF_RANGE = 7
    B_OUT_OF_RANGE = 8
    UNKNOWN_NORMALISATION = 9
    STATISTICS_OUT_OF_RANGE = 10
    TITLES_LENGTH_MISMATCH = 11
    TOO_MANY_CANDIDATES = 12
    TEXT_TOO_LONG = 13
    QUERY_TOO_LONG = 14
    BUFFER_TOO_SMALL = 15
    OUT_OF_MEMORY = 16
    RESEMBLANCE_OUT_OF_RANGE = 17
    TOO_MANY_TEXTS_TO_GROUP = 18
    TITLE_OUT_OF_RANGE = 19
    PROXIMITY_OUT_OF_RANGE = 20
    UNKNOWN_STORE = 21
    TOO_MANY_STORES = 22
    IDS_MALFORMED = 23


class Text(ctypes.Structure):
    """``sluice_text``. The bytes are held by reference: they live as long as this struct."""

    _fields_ = (("bytes", ctypes.c_char_p), ("byte_count", ctypes.c_uint64))


class Texts(ctypes.Structure):
    """``sluice_texts``. The bytes are held by reference: they live as long as this struct."""

    _fields_ = (
        ("bytes", ctypes.c_char_p),
        ("byte_count", ctypes.c_uint64),
        ("offsets", ctypes.c_void_p),
        ("offset_count", ctypes.c_uint64),
    )


class Candidates(ctypes.Structure):
    """``sluice_candidates``."""

    _fields_ = (
        ("texts", Texts),
        ("titles", Texts),
        ("similarities", ctypes.c_void_p),
        ("similarity_count", ctypes.c_uint64),
    )


class Options(ctypes.Structure):
    """``sluice_options``."""

    _fields_ = (
        ("alpha", ctypes.c_double),
        ("k1", ctypes.c_double),
        ("b", ctypes.c_double),
        ("title", ctypes.c_double),
        ("proximity", ctypes.c_double),
        ("normalisation", ctypes.c_uint32),
        ("adaptive", ctypes.c_uint32),
    )


class Statistics(ctypes.Structure):
    """``sluice_statistics``."""

    _fields_ = (
        ("document_count", ctypes.c_uint64),
        ("text_words", ctypes.c_uint64),
        ("title_words", ctypes.c_uint64),
        ("hashes", ctypes.c_void_p),
        ("frequencies", ctypes.c_void_p),
        ("count", ctypes.c_uint64),
    )


class Columns(ctypes.Structure):
    """``sluice_scores``."""

    _fields_ = (
        ("fused", ctypes.c_void_p),
        ("dense", ctypes.c_void_p),
        ("lexical_raw", ctypes.c_void_p),
        ("lexical", ctypes.c_void_p),
        ("title", ctypes.c_void_p),
        ("proximity", ctypes.c_void_p),
        ("capacity", ctypes.c_uint64),
        ("alpha", ctypes.c_double),
        ("chunk_count", ctypes.c_uint64),
    )


class PackedTerms(ctypes.Structure):
    """``sluice_terms``."""

    _fields_ = (
        ("bytes", ctypes.c_void_p),
        ("byte_capacity", ctypes.c_uint64),
        ("offsets", ctypes.c_void_p),
        ("offset_capacity", ctypes.c_uint64),
        ("byte_count", ctypes.c_uint64),
        ("term_count", ctypes.c_uint64),
    )


class Spans(ctypes.Structure):
    """``sluice_spans``; each span is two uint32, start and end."""

    _fields_ = (
        ("spans", ctypes.c_void_p),
        ("capacity", ctypes.c_uint64),
        ("offsets", ctypes.c_void_p),
        ("text_capacity", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
    )


class PackedWordCounts(ctypes.Structure):
    """``sluice_word_counts``."""

    _fields_ = (
        ("hashes", ctypes.c_void_p),
        ("hash_capacity", ctypes.c_uint64),
        ("offsets", ctypes.c_void_p),
        ("text_words", ctypes.c_void_p),
        ("title_words", ctypes.c_void_p),
        ("text_capacity", ctypes.c_uint64),
        ("hash_count", ctypes.c_uint64),
    )


class Ids(ctypes.Structure):
    """``sluice_ids``. The bytes are held by reference: they live as long as this struct."""

    _fields_ = (
        ("bytes", ctypes.c_char_p),
        ("byte_count", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
    )


class Usage(ctypes.Structure):
    """``sluice_usage``."""

    _fields_ = (
        ("bytes", ctypes.c_uint64),
        ("chunks", ctypes.c_uint64),
        ("hits", ctypes.c_uint64),
        ("misses", ctypes.c_uint64),
        ("evictions", ctypes.c_uint64),
    )


def declare(library: ctypes.CDLL) -> None:
    """Give the functions of a loaded library their argument and result types."""
    pointer = ctypes.POINTER
    library.sluice_rerank_abi_version.argtypes = ()
    library.sluice_rerank_abi_version.restype = ctypes.c_uint32
    library.sluice_rerank_status_message.argtypes = (ctypes.c_uint32,)
    library.sluice_rerank_status_message.restype = ctypes.c_char_p
    library.sluice_rerank_analyze.argtypes = (pointer(Text), pointer(PackedTerms))
    library.sluice_rerank_analyze.restype = ctypes.c_uint32
    library.sluice_rerank_score.argtypes = (
        pointer(Text),
        pointer(Candidates),
        pointer(Options),
        pointer(Statistics),
        pointer(Columns),
    )
    library.sluice_rerank_score.restype = ctypes.c_uint32
    library.sluice_rerank_highlight.argtypes = (pointer(Text), pointer(Texts), pointer(Spans))
    library.sluice_rerank_highlight.restype = ctypes.c_uint32
    library.sluice_rerank_count_words.argtypes = (
        pointer(Texts),
        pointer(Texts),
        pointer(PackedWordCounts),
    )
    library.sluice_rerank_count_words.restype = ctypes.c_uint32
    library.sluice_rerank_group_duplicates.argtypes = (
        pointer(Texts),
        ctypes.c_double,
        ctypes.c_void_p,
        ctypes.c_uint64,
    )
    library.sluice_rerank_group_duplicates.restype = ctypes.c_uint32
    _declare_stores(library)


def _declare_stores(library: ctypes.CDLL) -> None:
    pointer, store = ctypes.POINTER, ctypes.c_uint64
    address, status = ctypes.c_void_p, ctypes.c_uint32
    library.sluice_store_open.argtypes = (ctypes.c_uint64, pointer(ctypes.c_uint64))
    library.sluice_store_open.restype = status
    library.sluice_store_close.argtypes = (store,)
    library.sluice_store_close.restype = status
    library.sluice_store_missing.argtypes = (store, pointer(Ids), address)
    library.sluice_store_missing.restype = status
    library.sluice_store_put.argtypes = (store, pointer(Ids), pointer(Texts), pointer(Texts))
    library.sluice_store_put.restype = status
    library.sluice_store_score.argtypes = (
        store,
        pointer(Text),
        pointer(Ids),
        address,
        pointer(Options),
        pointer(Statistics),
        pointer(Columns),
        address,
    )
    library.sluice_store_score.restype = status
    library.sluice_store_usage.argtypes = (store, pointer(Usage))
    library.sluice_store_usage.restype = status
