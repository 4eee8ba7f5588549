"""Cross-encoders for tests: tiny random BERTs with their forward pass in NumPy, and toy graphs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from bench.random_cross_encoder import write_cross_encoder, write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

LAYERS, HIDDEN, HEADS, INNER, VOCABULARY, SEED = 2, 32, 4, 64, 900, 11
QUERY = "How is an under-replicated block found?"
TEXTS = [
    "The name node counts the replicas that each data node reports.",
    "block",
    "A river flows through the old lake; nothing here answers anything.",
    "under-replicated blocks are queued by how many replicas they lack, the fewest first",
    "dfs.replication 3",
    "Lease recovery closes the file of a writer that went away. " * 4,
    "How is an under-replicated block found?",
]


def write_tiny(
    folder: Path, *, int8: bool = False, labels: int = 1, vocabulary: int = VOCABULARY
) -> Path:
    write_cross_encoder(
        folder,
        layers=LAYERS,
        hidden=HIDDEN,
        heads=HEADS,
        intermediate=INNER,
        vocabulary=vocabulary,
        seed=SEED,
        int8=int8,
        labels=labels,
    )
    return folder


def forward(
    w: Mapping[str, NDArray[np.float32]], ids: Sequence[int], types: Sequence[int]
) -> NDArray[np.float64]:
    """Logits of one pair in float64, written from the paper: shape (labels,)."""
    t = {name: tensor.astype(np.float64) for name, tensor in w.items()}

    def linear(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return np.asarray(x @ t[f"{name}.weight"].T + t[f"{name}.bias"])

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return np.asarray(scaled * t[f"{name}.weight"] + t[f"{name}.bias"])

    def heads(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return x.reshape(len(ids), HEADS, HIDDEN // HEADS).transpose(1, 0, 2)

    x = norm(
        t["embeddings.word_embeddings.weight"][list(ids)]
        + t["embeddings.position_embeddings.weight"][: len(ids)]
        + t["embeddings.token_type_embeddings.weight"][list(types)],
        "embeddings.LayerNorm",
    )
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        q, k, v = (
            heads(linear(x, f"{name}.attention.self.{p}")) for p in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(HIDDEN // HEADS)
        probabilities = np.exp(scores - scores.max(-1, keepdims=True))
        probabilities /= probabilities.sum(-1, keepdims=True)
        mixed = (probabilities @ v).transpose(1, 0, 2).reshape(x.shape)
        attended = linear(mixed, f"{name}.attention.output.dense")
        x = norm(attended + x, f"{name}.attention.output.LayerNorm")
        inner = linear(x, f"{name}.intermediate.dense")
        inner *= 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = norm(linear(inner, f"{name}.output.dense") + x, f"{name}.output.LayerNorm")
    return linear(np.tanh(linear(x[0], "pooler.dense")), "classifier")


def write_toy(
    folder: Path,
    columns: Sequence[tuple[str, float]],
    *,
    inputs: Mapping[str, int] | None = None,
    output: str = "logits",
    kind: int = TensorProto.FLOAT,
    squeezed: Sequence[int] = (),
) -> Path:
    """Write a graph that gives, for a pair of n tokens, a column for each (operator, c): op(c - n).

    `inputs` are names with the kind of tensor, `kind` is that of the output, and `squeezed` are
    axes that it lacks.
    """
    folder.mkdir(parents=True)
    inputs = inputs or {"input_ids": TensorProto.INT64}
    ones = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("Shape", [next(iter(inputs))], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=ones),
        helper.make_node("ReduceSum", ["ones", "axis"], ["count"], keepdims=1),
    ]
    constants = [helper.make_tensor("axis", TensorProto.INT64, [1], [1])]
    for at, (operator, bound) in enumerate(columns):
        constants.append(helper.make_tensor(f"c{at}", TensorProto.FLOAT, [1], [bound]))
        nodes.append(helper.make_node("Sub", [f"c{at}", "count"], [f"rest{at}"]))
        nodes.append(helper.make_node(operator, [f"rest{at}"], [f"column{at}"]))
    names = [f"column{at}" for at in range(len(columns))]
    nodes.append(helper.make_node("Concat", names, ["table"], axis=1))
    if squeezed:
        axes = helper.make_tensor("squeezed", TensorProto.INT64, [len(squeezed)], squeezed)
        constants.append(axes)
        nodes.append(helper.make_node("Squeeze", ["table", "squeezed"], ["shaped"]))
    nodes.append(helper.make_node("Cast", ["shaped" if squeezed else "table"], [output], to=kind))
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(n, k, ["batch", "sequence"]) for n, k in inputs.items()],
        [helper.make_tensor_value_info(output, kind, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    write_tokenizer(folder / "tokenizer.json", VOCABULARY)
    return folder


def tokens_of(text: str, count: int) -> str:
    """Repeat a text of one token."""
    return " ".join([text] * count)
