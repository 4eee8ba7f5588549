"""The structs, functions and statuses of include/sluice_rerank.h as ctypes sees them.

It must say exactly what the header says, and never more: no check and no conversion lives here.
"""

from __future__ import annotations

import ctypes
import enum

ABI_VERSION = 1
MAX_CANDIDATES = 1 << 20
MAX_TEXT_BYTES = 1 << 31
MAX_QUERY_BYTES = 1 << 20


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
    STATISTICS_LENGTH_MISMATCH = 11
    TOO_MANY_CANDIDATES = 12
    TEXT_TOO_LONG = 13
    QUERY_TOO_LONG = 14
    BUFFER_TOO_SMALL = 15
    OUT_OF_MEMORY = 16


class Text(ctypes.Structure):
    """``sluice_text``. The bytes are held by reference: they live as long as this struct."""

    _fields_ = (("bytes", ctypes.c_char_p), ("byte_count", ctypes.c_uint64))


class Candidates(ctypes.Structure):
    """``sluice_candidates``."""

    _fields_ = (
        ("bytes", ctypes.c_char_p),
        ("byte_count", ctypes.c_uint64),
        ("offsets", ctypes.c_void_p),
        ("offset_count", ctypes.c_uint64),
        ("similarities", ctypes.c_void_p),
        ("similarity_count", ctypes.c_uint64),
    )


class Options(ctypes.Structure):
    """``sluice_options``."""

    _fields_ = (
        ("alpha", ctypes.c_double),
        ("k1", ctypes.c_double),
        ("b", ctypes.c_double),
        ("normalisation", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


class Statistics(ctypes.Structure):
    """``sluice_statistics``."""

    _fields_ = (
        ("document_count", ctypes.c_uint64),
        ("average_length", ctypes.c_double),
        ("document_frequencies", ctypes.c_void_p),
        ("term_count", ctypes.c_uint64),
    )


class Columns(ctypes.Structure):
    """``sluice_scores``."""

    _fields_ = (
        ("fused", ctypes.c_void_p),
        ("dense", ctypes.c_void_p),
        ("lexical_raw", ctypes.c_void_p),
        ("lexical", ctypes.c_void_p),
        ("capacity", ctypes.c_uint64),
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
        ("count", ctypes.c_uint64),
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
    library.sluice_rerank_highlight.argtypes = (pointer(Text), pointer(Text), pointer(Spans))
    library.sluice_rerank_highlight.restype = ctypes.c_uint32
