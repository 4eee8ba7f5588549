"""Scoring of candidates by meaning and by words together, in a native library.

The core is Zig (src/, contract in include/sluice_rerank.h); this package is its door to Python.
It must never rank by anything but what it is given: it knows no store, no model and no service.
"""

from rerank_zig.binding import (
    CorpusStatistics,
    FusionOptions,
    Normalisation,
    RerankLibrary,
    Scores,
)

__all__ = ["CorpusStatistics", "FusionOptions", "Normalisation", "RerankLibrary", "Scores"]
