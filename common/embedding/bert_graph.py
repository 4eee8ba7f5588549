"""Builds ONNX graphs of BERT from its weights: sentence encoder and classifier of pairs.

The graphs are standard ONNX (opset 20) and read `input_ids` and `attention_mask` of shape (batch,
sequence). An encoder gives `sentence_embedding` of shape (batch, dimension) with rows of length 1;
its head fits on encoders exported elsewhere, too. A classifier reads `token_type_ids` as well and
gives `logits` of shape (batch, labels). A graph must never depend on the weights' values, so that
one converter version always writes one graph.

Architecture: Devlin et al. 2019, in the post-norm form of Hugging Face's BertModel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

OUTPUT = "sentence_embedding"
LOGITS = "logits"
_INPUTS = ("input_ids", "attention_mask")
_SEGMENTS = "token_type_ids"
_OUTPUTS = (OUTPUT, "last_hidden_state", "token_embeddings")  # names that exporters use, best first
_POOLED_RANK = 2
_TOKENS_RANK = 3
_OPSET = 20
_IR_VERSION = 10
_MASKED = 1e9  # subtracted from the scores of padding: e^-1e9 is 0, and float32 still holds it
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}


@dataclass
class _Graph:
    """Nodes and constants in the order they are added, with names made on the way."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:  # noqa: ANN401 - ONNX attributes are of any type
        output = output or f"sluice/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


@dataclass(frozen=True)
class BertShape:
    """The part of config.json that shapes the graph."""

    layers: int
    heads: int
    hidden: int
    epsilon: float
    activation: str

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> BertShape:
        """Read a Hugging Face config.json.

        Raises:
            ConfigurationError: another architecture than BERT with absolute positions.
        """
        if config.get("model_type") != "bert":
            raise ConfigurationError(
                f"config.json has model_type {config.get('model_type')!r}; only 'bert' weights are "
                "converted. Export the model to ONNX and put model.onnx into its folder."
            )
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise ConfigurationError(
                "config.json: only position_embedding_type 'absolute' is converted"
            )
        activation = config.get("hidden_act", "gelu")
        if activation not in _ACTIVATIONS:
            raise ConfigurationError(
                f"config.json: hidden_act {activation!r} is not one of {sorted(_ACTIVATIONS)}"
            )
        try:
            return cls(
                layers=int(config["num_hidden_layers"]),
                heads=int(config["num_attention_heads"]),
                hidden=int(config["hidden_size"]),
                epsilon=float(config.get("layer_norm_eps", 1e-12)),
                activation=activation,
            )
        except KeyError as error:
            raise ConfigurationError(f"config.json lacks {error}") from error


class _Bert:
    """Adds BertModel to a graph, one method a block; with `segments` it reads `token_type_ids`."""

    def __init__(
        self,
        graph: _Graph,
        shape: BertShape,
        weights: Mapping[str, NDArray[np.float32]],
        *,
        segments: bool = False,
    ) -> None:
        self._graph, self._shape, self._weights = graph, shape, weights
        self._segments = segments
        size = shape.hidden // shape.heads
        self._split = graph.constant("split_heads", np.array([0, 0, shape.heads, size], np.int64))
        self._join = graph.constant("join_heads", np.array([0, 0, shape.hidden], np.int64))
        self._scale = graph.constant("scale", np.float32(size**-0.5))

    def hidden_states(self) -> str:
        x = self._embeddings()
        bias = self._mask_bias()
        for layer in range(self._shape.layers):
            x = self._layer(x, bias, f"encoder.layer.{layer}")
        return x

    def logits(self) -> str:
        """Pool the first token and classify it: BertForSequenceClassification."""
        g = self._graph
        first = g.op("Gather", self.hidden_states(), g.constant("first", np.array(0)), axis=1)
        pooled = g.op("Tanh", self._linear(first, "pooler.dense"))
        return g.op("Identity", self._linear(pooled, "classifier"), output=LOGITS)

    def labels(self) -> int:
        return len(self._weight("classifier.bias"))

    def _weight(self, name: str) -> NDArray[np.float32]:
        try:
            return self._weights[name]
        except KeyError:
            raise ConfigurationError(
                f"the weights lack {name!r}; the file is not of the model in config.json"
            ) from None

    def _embeddings(self) -> str:
        g = self._graph
        words = g.constant("words", self._weight("embeddings.word_embeddings.weight"))
        table = self._weight("embeddings.position_embeddings.weight")
        segments = self._weight("embeddings.token_type_embeddings.weight")
        if not self._segments:
            # one segment only: its vector is the same for every token, so it joins the positions
            table = table + segments[0]
        length = g.op("Shape", "input_ids", start=1, end=2)
        start = g.constant("zero", np.array([0], np.int64))
        positions = g.op("Slice", g.constant("positions", table), start, length)
        x = g.op("Add", g.op("Gather", words, "input_ids"), positions)
        if self._segments:
            x = g.op("Add", x, g.op("Gather", g.constant("segments", segments), _SEGMENTS))
        return self._norm(x, "embeddings.LayerNorm")

    def _mask_bias(self) -> str:
        g = self._graph
        mask = g.op("Cast", "attention_mask", to=TensorProto.FLOAT)
        absent = g.op("Sub", mask, g.constant("one", np.float32(1)))
        bias = g.op("Mul", absent, g.constant("masked", np.float32(_MASKED)))
        return g.op("Reshape", bias, g.constant("as_keys", np.array([0, 1, 1, -1], np.int64)))

    def _layer(self, x: str, bias: str, name: str) -> str:
        g = self._graph
        attended = self._linear(self._attention(x, bias, name), f"{name}.attention.output.dense")
        x = self._norm(g.op("Add", attended, x), f"{name}.attention.output.LayerNorm")
        kind, attributes = _ACTIVATIONS[self._shape.activation]
        inner = g.op(kind, self._linear(x, f"{name}.intermediate.dense"), **attributes)
        return self._norm(
            g.op("Add", self._linear(inner, f"{name}.output.dense"), x), f"{name}.output.LayerNorm"
        )

    def _attention(self, x: str, bias: str, name: str) -> str:
        g = self._graph
        query, key, value = (
            g.op(
                "Transpose",
                g.op("Reshape", self._linear(x, f"{name}.attention.self.{part}"), self._split),
                perm=order,
            )
            for part, order in (
                ("query", [0, 2, 1, 3]),
                ("key", [0, 2, 3, 1]),
                ("value", [0, 2, 1, 3]),
            )
        )
        scores = g.op("Add", g.op("Mul", g.op("MatMul", query, key), self._scale), bias)
        mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), value)
        return g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), self._join)

    def _linear(self, x: str, name: str) -> str:
        g = self._graph
        product = g.op("MatMul", x, g.constant(f"{name}.weight", self._weight(f"{name}.weight").T))
        return g.op("Add", product, g.constant(f"{name}.bias", self._weight(f"{name}.bias")))

    def _norm(self, x: str, name: str) -> str:
        g = self._graph
        return g.op(
            "LayerNormalization",
            x,
            g.constant(f"{name}.weight", self._weight(f"{name}.weight")),
            g.constant(f"{name}.bias", self._weight(f"{name}.bias")),
            axis=-1,
            epsilon=self._shape.epsilon,
        )


def _add_head(graph: _Graph, tokens: str, pooling: str) -> None:
    """Pool (batch, sequence, dimension) to one row a text and give it length 1.

    The mean is taken as the sum over the unmasked tokens: its divisor cancels in the norm. Every
    operator here means the same in every opset from 5 on, so it fits on foreign graphs too.
    """
    if pooling == "cls":
        first = graph.constant("sluice/first", np.array(0, np.int64))
        pooled = graph.op("Gather", tokens, first, axis=1)
    else:
        mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
        as_row = graph.constant("sluice/as_row", np.array([0, 1, -1], np.int64))
        summed = graph.op("MatMul", graph.op("Reshape", mask, as_row), tokens)
        flat = graph.constant("sluice/flat", np.array([0, -1], np.int64))
        pooled = graph.op("Reshape", summed, flat)
    graph.op("LpNormalization", pooled, output=OUTPUT, axis=-1, p=2)


def bert_encoder(
    config: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]], pooling: str
) -> Any:  # noqa: ANN401 - onnx ships no types
    """Build the encoder of a BERT.

    Args:
        config: the content of config.json.
        weights: tensors by their Hugging Face names, without a `bert.` prefix.
        pooling: ``mean`` or ``cls``.

    Returns:
        onnx.ModelProto.

    Raises:
        ConfigurationError: not a BERT, or a tensor is missing.
    """
    shape = BertShape.parse(config)
    graph = _Graph()
    _add_head(graph, _Bert(graph, shape, weights).hidden_states(), pooling)
    return _model(graph, _INPUTS, OUTPUT, shape.hidden)


def bert_classifier(config: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]]) -> Any:  # noqa: ANN401 - onnx ships no types
    """Build a BERT that classifies pairs, such as a cross-encoder.

    Args:
        config: the content of config.json.
        weights: tensors by their Hugging Face names, without a `bert.` prefix, `pooler.dense` and
            `classifier` among them.

    Returns:
        onnx.ModelProto.

    Raises:
        ConfigurationError: not a BERT, or a tensor is missing.
    """
    graph = _Graph()
    bert = _Bert(graph, BertShape.parse(config), weights, segments=True)
    return _model(graph, (*_INPUTS, _SEGMENTS), bert.logits(), bert.labels())


def _model(graph: _Graph, inputs: Sequence[str], output: str, width: int) -> Any:  # noqa: ANN401 - as above
    """Close a graph that gives (batch, width)."""
    ids = ["batch", "sequence"]
    proto = helper.make_graph(
        graph.nodes,
        "bert",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ids) for n in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])],
        graph.constants,
    )
    return helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="sluice",
    )


def complete_encoder(model: Any, pooling: str) -> Any:  # noqa: ANN401 - onnx ships no types
    """Give an encoder exported elsewhere the inputs and the output of ours, in place.

    `token_type_ids` become zeros inside the graph; token vectors are pooled, and what the model
    pooled itself is only normalised.

    Args:
        model: onnx.ModelProto.
        pooling: ``mean`` or ``cls``, for a model that gives token vectors.

    Raises:
        ConfigurationError: the model has other inputs, or no output that can be used.
    """
    graph = model.graph
    # an old export may list its weights among the inputs
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in weights}
    wrong = (set(inputs) ^ set(_INPUTS)) - {_SEGMENTS}
    wrong |= {n for n, v in inputs.items() if v.type.tensor_type.elem_type != TensorProto.INT64}
    if wrong:
        raise ConfigurationError(
            "model.onnx must read int64 input_ids, attention_mask and, at most, token_type_ids; "
            f"wrong or missing: {', '.join(sorted(wrong))}"
        )
    before, after = _Graph(), _Graph()
    if _SEGMENTS in inputs:
        shape = before.op("Shape", "input_ids", output="sluice/ids_shape")
        zero = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
        before.op("ConstantOfShape", shape, output=_SEGMENTS, value=zero)
        graph.input.remove(inputs[_SEGMENTS])
    vectors, rank = _vectors_of(graph)
    as_float = after.op("Cast", _renamed(graph, vectors), to=TensorProto.FLOAT)
    if rank == _POOLED_RANK:
        after.op("LpNormalization", as_float, output=OUTPUT, axis=-1, p=2)
    else:
        _add_head(after, as_float, pooling)
    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(after.constants)
    graph.output.append(
        helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", "dimension"])
    )
    return model


def _vectors_of(graph: Any) -> tuple[str, int]:  # noqa: ANN401 - onnx ships no types
    """Choose the output that holds the vectors; its name and rank."""
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.output}
    names = [n for n in _OUTPUTS if n in ranks] or (list(ranks) if len(ranks) == 1 else [])
    if not names or ranks[names[0]] not in {_POOLED_RANK, _TOKENS_RANK}:
        raise ConfigurationError(
            f"model.onnx must give one of {', '.join(_OUTPUTS)} with 2 or 3 axes; it gives "
            + ", ".join(f"{name} ({rank} axes)" for name, rank in ranks.items())
        )
    return names[0], ranks[names[0]]


def _renamed(graph: Any, name: str) -> str:  # noqa: ANN401 - onnx ships no types
    """Free our output's name where the graph uses it already."""
    if name != OUTPUT:
        return name
    free = f"sluice/raw_{OUTPUT}"
    for node in graph.node:
        for names in (node.input, node.output):
            for index, used in enumerate(names):
                if used == OUTPUT:
                    names[index] = free
    return free


def save(model: Any, path: str) -> None:  # noqa: ANN401 - onnx ships no types
    """Check and write a model as one file."""
    onnx.checker.check_model(model)
    onnx.save_model(model, path)
