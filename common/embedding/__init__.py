"""Texts to vectors: one Protocol, three implementations and the models they run.

Nothing here reaches a network while embedding, except the embedder whose purpose that is. Weights
are fetched and converted beforehand (`common.embedding.models`), never while serving.
"""

from common.embedding.embedder import Embedder, EmbedderSpec
from common.embedding.models import convert_model, fetch_model
from common.embedding.opening import open_embedder
from common.embedding.settings import EmbeddingSettings, default_models_dir

__all__ = [
    "Embedder",
    "EmbedderSpec",
    "EmbeddingSettings",
    "convert_model",
    "default_models_dir",
    "fetch_model",
    "open_embedder",
]
