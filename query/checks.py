"""What `sluice doctor` asks of the query service: whether its native library loads and ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from common.doctor import Check
from common.errors import SluiceError
from rerank_zig import RerankLibrary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def checks(*, file: Path | None, environ: Mapping[str, str]) -> Iterator[Check]:
    """Load the library as the server does and score two texts."""
    del file, environ  # nothing about it can be set
    try:
        scores = RerankLibrary.load().score(
            "replica", ["a replica is missing", "nothing"], np.zeros(2, np.float32)
        )
    except SluiceError as error:
        yield Check("native reranker", ok=False, detail="does not load", cure=error.message)
        return
    ranks = bool(scores.fused[0] > scores.fused[1])
    cure = "" if ranks else "build it again: make setup"
    yield Check("native reranker", ok=ranks, detail="loads and ranks", cure=cure)
