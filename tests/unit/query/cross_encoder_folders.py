"""Cross-encoders for tests: tiny random BERTs with their forward pass in NumPy, and toy graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from bench.random_cross_encoder import write_cross_encoder, write_tokenizer
from tests.unit.common.embedding.tiny_bert import (
    HEADS,
    HIDDEN,
    INNER,
    LAYERS,
    hidden_states,
    linear,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

VOCABULARY, SEED = 900, 11
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
    first = hidden_states(w, ids, types)[0]
    return linear(w, "classifier", np.tanh(linear(w, "pooler.dense", first)))


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
