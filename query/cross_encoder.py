"""The seam to the neural stage: a cross-encoder scores query and text read together.

It is optional, and slow beside everything else here, so what it may do is bounded by time: it
scores as many of the first candidates as it can and leaves the others as they were. No weights
come with Sluice, and it must never download any.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import Field

from common.config import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class CrossEncoderSettings(Settings):
    """Section ``query.cross_encoder``.

    Attributes:
        folder: a cross-encoder as exporters to ONNX write it: `model.onnx` or `onnx/model.onnx`,
            `tokenizer.json` and, if there, `config.json` and `tokenizer_config.json`.
        file: the graph inside the folder, where it has another name: ``onnx/model_int8.onnx``.
        candidates: of the fused order, scored where a request names no number.
        max_tokens: what the model reads of a query and a text together, special tokens included;
            0 is what it can read, and 512 at most, for time grows with it.
        threads: pairs scored at once; 0 is one for each core of this process.
    """

    folder: Path
    file: str = ""
    candidates: int = Field(default=50, ge=1, le=1000)
    max_tokens: int = Field(default=0, ge=0, le=65_536)
    threads: int = Field(default=0, ge=0, le=1024)


class CrossEncoder(Protocol):
    """Scores texts against a query; calls may overlap."""

    async def score(
        self, query: str, texts: Sequence[str], *, budget_s: float
    ) -> NDArray[np.float32]:
        """Score the first texts, as many as are expected to be done in time.

        A score depends on its query and its text alone. The greater, the better the text answers;
        scores of different queries or models do not compare.

        Args:
            query: at most half of what the model reads; what is longer is cut.
            texts: in the order of their importance; each is cut to what the model reads.
            budget_s: time from now, in seconds, waiting for other calls included. It is kept but
                for what the last text takes longer than expected.

        Returns:
            Finite scores of the first m texts, shape (m,). It is shorter than `texts` where time
            ran out or the model gave no number for the next text, and empty if that was the first.
        """
        ...

    async def aclose(self) -> None:
        """Let go of threads once what they run is done."""
        ...


def open_cross_encoder(settings: CrossEncoderSettings) -> CrossEncoder:
    """Open a cross-encoder; its `aclose` is the caller's duty.

    Reads files and runs the model, so it belongs at start-up and not in a request.

    Raises:
        ConfigurationError: names the key, what is wrong with it and its cure.
    """
    # imports onnxruntime, which only who asks for this stage needs
    from query.onnx_cross_encoder import OnnxCrossEncoder  # noqa: PLC0415 - as above
    from query.pair_model import PairModel  # noqa: PLC0415 - as above

    model = PairModel(settings.folder, file=settings.file, max_tokens=settings.max_tokens)
    return OnnxCrossEncoder(model, threads=settings.threads)
