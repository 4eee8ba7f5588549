"""Scoring of candidates by meaning and by words together, in a native library.

The core is Zig (src/, contract in include/sluice_rerank.h); this package is its door to Python.
It must never rank by anything but what it is given: it knows no store, no model and no service.
"""

from rerank_zig.binding import RerankLibrary
from rerank_zig.options import FusionOptions, Normalisation, Scores
from rerank_zig.store import StoreUsage, TermStore
from rerank_zig.words import ANALYSIS, WordCounts, WordStatistics

__all__ = [
    "ANALYSIS",
    "FusionOptions",
    "Normalisation",
    "RerankLibrary",
    "Scores",
    "StoreUsage",
    "TermStore",
    "WordCounts",
    "WordStatistics",
]
