"""Writes a cross-encoder of any shape with random weights, as a folder that exporters write.

What it costs to run is that of a trained one of its shape; what it says means nothing, so it must
never judge quality. One seed gives one model.
"""

from __future__ import annotations

import json
import shutil
import string
import tempfile
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from common.embedding import bert_graph

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

POSITIONS = 512
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def write_cross_encoder(
    folder: Path,
    *,
    layers: int,
    hidden: int,
    heads: int,
    intermediate: int,
    vocabulary: int,
    seed: int,
    int8: bool,
    labels: int = 1,
    tokenizer: Path | None = None,
) -> None:
    """Write model.onnx, tokenizer.json and config.json.

    Args:
        folder: where to; made if need be.
        layers: of the encoder.
        hidden: width of a token's vector, a multiple of `heads`.
        heads: of the attention.
        intermediate: width inside the feed-forward blocks.
        vocabulary: rows of the word table.
        seed: of the weights.
        int8: quantise the products dynamically, as an embedder's are.
        labels: 1, or 2 for a classifier of irrelevant and relevant.
        tokenizer: a tokenizer.json of at most `vocabulary` tokens to take along, so that texts
            have the number of tokens that they would have with a real model; without it, one whose
            pieces are the first letter sequences, most of them of three letters.
    """
    config = {
        "model_type": "bert",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "num_labels": labels,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if tokenizer is None:
        write_tokenizer(folder / "tokenizer.json", vocabulary)
    else:
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
    model = bert_graph.bert_classifier(config, random_weights(config, seed))
    # says that shapes are as quantisation likes them; without it, it warns on the root logger
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    if not int8:
        bert_graph.save(model, str(folder / "model.onnx"))
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        exact = Path(scratch) / "exact.onnx"
        bert_graph.save(model, str(exact))
        quantize_dynamic(
            exact,
            folder / "model.onnx",
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def random_weights(config: dict[str, Any], seed: int) -> dict[str, NDArray[np.float32]]:
    """Tensors by their Hugging Face names, of a size that keeps every activation near 1."""
    random = np.random.default_rng(seed)
    tenth = np.float32(0.1)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    weights: dict[str, NDArray[np.float32]] = {}

    def table(name: str, rows: int) -> None:
        weights[f"embeddings.{name}.weight"] = random.standard_normal((rows, hidden), np.float32)

    def linear(name: str, rows: int, columns: int) -> None:
        weight = random.standard_normal((rows, columns), np.float32)
        weights[f"{name}.weight"] = weight / np.float32(columns**0.5)
        weights[f"{name}.bias"] = tenth * random.standard_normal(rows, np.float32)

    def norm(name: str) -> None:
        weights[f"{name}.weight"] = 1 + tenth * random.standard_normal(hidden, np.float32)
        weights[f"{name}.bias"] = tenth * random.standard_normal(hidden, np.float32)

    table("word_embeddings", config["vocab_size"])
    table("position_embeddings", config["max_position_embeddings"])
    table("token_type_embeddings", config["type_vocab_size"])
    norm("embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{name}.attention.{part}", hidden, hidden)
        norm(f"{name}.attention.output.LayerNorm")
        linear(f"{name}.intermediate.dense", inner, hidden)
        linear(f"{name}.output.dense", hidden, inner)
        norm(f"{name}.output.LayerNorm")
    linear("pooler.dense", hidden, hidden)
    linear("classifier", config["num_labels"], hidden)
    return weights


def write_tokenizer(path: Path, size: int) -> None:
    """Save a WordPiece tokenizer of pairs with `size` pieces, truncating as published ones do."""
    tokens = [*SPECIALS, *islice(_pieces(), size - len(SPECIALS))]
    ids = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128)
    tokenizer.save(str(path))


def _pieces() -> Iterator[str]:
    """Characters, then sequences of two and three letters, each at a word's start and inside."""
    for character in string.ascii_lowercase + string.digits:
        yield from (character, f"##{character}")
    yield from string.punctuation
    for length in (2, 3):
        for letters in product(string.ascii_lowercase, repeat=length):
            yield from ("".join(letters), "##" + "".join(letters))
