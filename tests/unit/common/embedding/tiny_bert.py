"""A tiny BERT with random weights, as a Hugging Face folder, and its forward pass in NumPy."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

WORDS = (  # noqa: SIM905 - prose reads better than a list
    "the a of to in and river lake water flows through old new data file index query words mean "
    "nothing here but they are many enough for all tests that need some text of any length"
).split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(WORDS), "##s", "##ing"]
HIDDEN, HEADS, LAYERS, INNER, POSITIONS, MAX_TOKENS = 32, 4, 2, 64, 40, 16


def sentence(seed: int, words: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


def config(**changes: object) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        **changes,
    }


def weights(seed: int = 7) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return (random.standard_normal(shape) * 0.2).astype(np.float32)

    tensors = {
        "embeddings.word_embeddings.weight": normal(len(VOCABULARY), HIDDEN),
        "embeddings.position_embeddings.weight": normal(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": normal(2, HIDDEN),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
        for part, rows, columns in (
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", INNER, HIDDEN),
            ("output.dense", HIDDEN, INNER),
        ):
            tensors[f"{name}.{part}.weight"] = normal(rows, columns)
            tensors[f"{name}.{part}.bias"] = normal(rows)
    for norm in norms:
        tensors[f"{norm}.weight"] = 1 + normal(HIDDEN)
        tensors[f"{norm}.bias"] = normal(HIDDEN)
    return tensors


def write_tokenizer(path: Path) -> None:
    """Save a WordPiece tokenizer, truncating and padding as published ones often do."""
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(path))


def write_folder(
    folder: Path,
    *,
    pooling: str = "mean",
    tensors: Mapping[str, NDArray[np.floating[Any]]] | None = None,
    **changes: object,
) -> Path:
    (folder / "1_Pooling").mkdir(parents=True)
    modes = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
    modes["max"] = "pooling_mode_max_tokens"
    flags = {name: name == modes[pooling] for name in modes.values()}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": HIDDEN, **flags})
    _write(folder / "config.json", config(**changes))
    _write(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS})
    save_file(dict(weights() if tensors is None else tensors), folder / "model.safetensors")
    write_tokenizer(folder / "tokenizer.json")
    return folder


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def forward(
    w: dict[str, NDArray[np.float32]],
    rows: Sequence[Sequence[int]],
    *,
    pooling: str = "mean",
    activation: str = "gelu",
) -> NDArray[np.float64]:
    """Embed each row of token ids by itself, in float64, written from the paper."""
    return np.stack([_embed(w, list(row), pooling, activation) for row in rows])


def _embed(
    w: dict[str, NDArray[np.float32]], ids: list[int], pooling: str, activation: str
) -> NDArray[np.float64]:
    x = hidden_states(w, ids, [0] * len(ids), activation)
    pooled = x[0] if pooling == "cls" else x.mean(0)
    return np.asarray(pooled / np.linalg.norm(pooled))


def linear(
    w: Mapping[str, NDArray[np.float32]], name: str, x: NDArray[np.float64]
) -> NDArray[np.float64]:
    weight, bias = (w[f"{name}.{part}"].astype(np.float64) for part in ("weight", "bias"))
    return np.asarray(x @ weight.T + bias)


def hidden_states(
    w: Mapping[str, NDArray[np.float32]],
    ids: Sequence[int],
    types: Sequence[int],
    activation: str = "gelu",
) -> NDArray[np.float64]:
    """What the last layer makes of each token: shape (tokens, HIDDEN)."""

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])

    def act(x: NDArray[np.float64]) -> NDArray[np.float64]:
        if activation == "relu":
            return np.maximum(x, 0)
        if activation == "gelu_new":
            return np.asarray(
                0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
            )
        return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))

    x = norm(
        w["embeddings.word_embeddings.weight"][list(ids)].astype(np.float64)
        + w["embeddings.position_embeddings.weight"][: len(ids)]
        + w["embeddings.token_type_embeddings.weight"][list(types)],
        "embeddings.LayerNorm",
    )
    size = HIDDEN // HEADS
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        q, k, v = (linear(w, f"{name}.attention.self.{p}", x) for p in ("query", "key", "value"))
        mixed = np.empty_like(x)
        for head in range(HEADS):
            at = slice(head * size, (head + 1) * size)
            scores = q[:, at] @ k[:, at].T / math.sqrt(size)
            probabilities = np.exp(scores - scores.max(-1, keepdims=True))
            probabilities /= probabilities.sum(-1, keepdims=True)
            mixed[:, at] = probabilities @ v[:, at]
        attended = linear(w, f"{name}.attention.output.dense", mixed)
        x = norm(attended + x, f"{name}.attention.output.LayerNorm")
        inner = act(linear(w, f"{name}.intermediate.dense", x))
        x = norm(linear(w, f"{name}.output.dense", inner) + x, f"{name}.output.LayerNorm")
    return x
