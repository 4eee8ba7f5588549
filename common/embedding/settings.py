"""Settings of the embedder: frozen, read once by a composition root, passed down.

Field by field they are independent; what a kind of embedder needs beyond that is checked by
`open_embedder`, which names the key. A secret is never a setting, only the file that holds it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


def default_models_dir() -> Path:
    """Return `<sys.prefix>/share/sluice/models`: part of a venv, of an image."""
    return Path(sys.prefix) / "share" / "sluice" / "models"


class EmbeddingSettings(BaseModel):
    """Which embedder to open, and how it may use the machine or the network.

    Attributes:
        kind: ``onnx`` runs a model in this process, ``openai`` asks a server with the
            OpenAI-compatible API (TEI, vLLM and others), ``hashing`` is for tests only.
        model: a name inside `models_dir`, or a path (with a separator) of a Hugging Face folder;
            for ``openai`` the model's name on the server.
        variant: of an ONNX model: ``int8`` is about twice as fast as ``fp32``.
        models_dir: where `sluice models fetch` and `sluice models convert` put models.
        threads: computing threads of an ONNX model; 0 is one for each core of this process.
        batch_tokens: work handed to a thread at once, in tokens. Larger saves hand-overs, smaller
            keeps threads evenly loaded at the end of a call.
        url: base address of the server's API up to its version: ``http://host:8080/v1``.
        api_key_file: file that holds the bearer token; none is sent without it.
        ca_file: certificates in PEM that the server's is checked against instead of public ones.
        dimension: length of the server's vectors (``openai``), or of ``hashing`` (0 is 128).
        max_tokens: what the server's model reads of one text, in tokens.
        tokenizer_file: `tokenizer.json` of the server's model; without it tokens are estimated.
        batch_texts: texts in one request. TEI allows 32 unless configured otherwise.
        max_concurrent_batches: requests in flight at once.
        timeout_s: for one attempt of one request, in seconds.
        retries: attempts after the first; only after 429, 5xx and connection faults.
        retry_backoff_s: bound of the first random pause, in seconds; it doubles each time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["onnx", "openai", "hashing"] = "onnx"
    model: str = Field(default="all-MiniLM-L6-v2", min_length=1)
    variant: Literal["int8", "fp32"] = "int8"
    models_dir: Path = Field(default_factory=default_models_dir)
    threads: int = Field(default=0, ge=0, le=1024)
    batch_tokens: int = Field(default=512, ge=1, le=1_000_000)

    url: str = ""
    api_key_file: Path | None = None
    ca_file: Path | None = None
    dimension: int = Field(default=0, ge=0, le=65_536)
    max_tokens: int = Field(default=256, ge=1)
    tokenizer_file: Path | None = None
    batch_texts: int = Field(default=32, ge=1, le=2048)
    max_concurrent_batches: int = Field(default=4, ge=1, le=256)
    timeout_s: float = Field(default=30.0, gt=0, le=3600)
    retries: int = Field(default=4, ge=0, le=20)
    retry_backoff_s: float = Field(default=0.25, gt=0, le=30)
