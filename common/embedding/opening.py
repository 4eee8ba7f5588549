"""Opens the embedder that the settings ask for, or says which key is wrong and what cures it.

It must never download: a model that is not here is an error. A folder given by path is converted
on its first opening, into the models directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from common.embedding import hugging_face
from common.embedding.hashing_embedder import HashingEmbedder
from common.embedding.model_folder import read_manifest
from common.embedding.models import convert_model
from common.errors import ConfigurationError

if TYPE_CHECKING:
    from common.embedding.embedder import Embedder
    from common.embedding.settings import EmbeddingSettings


def open_embedder(settings: EmbeddingSettings) -> Embedder:
    """Open an embedder; its `aclose` is the caller's duty.

    Reads and checks files, so it belongs at start-up and not in a request.

    Raises:
        ConfigurationError: the settings cannot work, or the model is not here.
    """
    # each imports its library (httpx, onnxruntime) only where it is asked for
    if settings.kind == "hashing":
        return HashingEmbedder(settings.dimension)
    if settings.kind == "openai":
        from common.embedding.openai_embedder import OpenAIEmbedder  # noqa: PLC0415 - as above

        return OpenAIEmbedder(settings)
    from common.embedding.onnx_embedder import OnnxEmbedder  # noqa: PLC0415 - as above

    folder = _model_folder(settings)
    manifest = read_manifest(folder)
    if manifest is None:
        raise ConfigurationError(
            f"embedding.model: {folder} holds no complete model; run `sluice models fetch` for the "
            "default model or `sluice models convert FOLDER` for another"
        )
    return OnnxEmbedder(
        folder,
        manifest,
        variant=settings.variant,
        threads=settings.threads,
        batch_tokens=settings.batch_tokens,
    )


def _model_folder(settings: EmbeddingSettings) -> Path:
    """Find the model: by name in the models directory, or by path, converting it if need be."""
    if os.sep not in settings.model:
        return settings.models_dir / settings.model
    folder = Path(settings.model).expanduser().resolve()
    if read_manifest(folder) is not None:
        return folder
    # its digest in the name tells apart folders of one name, and states of one folder
    digest = hugging_face.read_source(folder).digest()
    return convert_model(folder, settings.models_dir, name=f"{folder.name}-{digest[:12]}")
