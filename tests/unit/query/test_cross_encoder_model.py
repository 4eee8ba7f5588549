"""A pair's score is what the paper says, whatever form the exporter gave the model."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto

from bench.random_cross_encoder import random_weights
from common.embedding.onnx_embedder import open_session
from common.embedding.tokenizer import open_tokenizer
from common.errors import ConfigurationError
from query.cross_encoder import CrossEncoderSettings, open_cross_encoder
from query.pair_model import PairModel
from tests.unit.query.cross_encoder_folders import (
    QUERY,
    SEED,
    TEXTS,
    forward,
    tokens_of,
    write_tiny,
    write_toy,
)

if TYPE_CHECKING:
    from pathlib import Path

INT32, INT64 = TensorProto.INT32, TensorProto.INT64


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("cross-encoder"))


def opened(folder: Path, *, file: str = "", max_tokens: int = 0) -> PairModel:
    return PairModel(folder, file=file, max_tokens=max_tokens)


def score(model: PairModel, query: str, text: str) -> float:
    return model.score(model.pair(model.question(query), text))


@pytest.mark.parametrize("labels", [1, 2])
def test_a_score_is_the_forward_pass_of_the_pair(tmp_path: Path, labels: int) -> None:
    folder = write_tiny(tmp_path / "model", labels=labels)
    weights = random_weights(json.loads((folder / "config.json").read_bytes()), SEED)
    model = opened(folder)
    tokenizer = open_tokenizer(folder / "tokenizer.json")
    scores = []
    for text in TEXTS:
        encoding = tokenizer.encode(QUERY, text)
        logits = forward(weights, encoding.ids, encoding.type_ids)
        expected = logits[0] if labels == 1 else logits[1] - logits[0]
        scores.append(score(model, QUERY, text))
        assert scores[-1] == pytest.approx(expected, abs=1e-4)
    assert np.diff(np.sort(scores)).min() > 1e-3  # so the tolerance tells them apart


def test_int8_is_near_and_not_equal(tiny: Path, tmp_path: Path) -> None:
    int8 = opened(write_tiny(tmp_path / "int8", int8=True))
    exact = np.array([score(opened(tiny), QUERY, text) for text in TEXTS])
    rounded = np.array([score(int8, QUERY, text) for text in TEXTS])
    assert np.abs(rounded - exact).max() > 1e-4
    assert np.corrcoef(rounded, exact)[0, 1] > 0.95


def test_padding_in_a_batch_never_changes_a_score(tiny: Path) -> None:
    model = opened(tiny)
    pairs = [model.pair(model.question(QUERY), text) for text in TEXTS]
    shape = len(pairs), max(len(pair.ids) for pair in pairs)
    ids, mask, types = np.full(shape, 7), np.zeros(shape, np.int64), np.ones(shape, np.int64)
    for row, pair in enumerate(pairs):
        length = len(pair.ids)
        ids[row, :length], mask[row, :length], types[row, :length] = pair.ids, 1, pair.types
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    (logits,) = open_session(tiny / "model.onnx").run(["logits"], feed)
    alone = [[model.score(pair)] for pair in pairs]
    np.testing.assert_allclose(logits, alone, atol=2e-5)


def test_only_the_text_is_cut_where_the_query_leaves_room(tiny: Path) -> None:
    tokenizer = open_tokenizer(tiny / "tokenizer.json")
    tokenizer.enable_truncation(64, strategy="only_second")
    model = opened(tiny, max_tokens=64)
    for text in ("", "block", TEXTS[5], "block " * 600):
        encoding = tokenizer.encode(QUERY, text)
        pair = model.pair(model.question(QUERY), text)
        assert (pair.ids, pair.types) == (encoding.ids, encoding.type_ids)


def test_a_query_longer_than_half_leaves_half_to_the_text(tiny: Path) -> None:
    model = opened(tiny, max_tokens=64)
    long = tokens_of("a", 500)
    pair = model.pair(model.question(long), tokens_of("b", 500))
    assert len(pair.ids) == 64
    assert pair.types.count(1) == 32  # 31 of the text and the last [SEP]
    assert math.isfinite(model.score(pair))


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        ({"input_ids": INT64}, TensorProto.FLOAT),
        ({"input_ids": INT32, "attention_mask": INT32}, TensorProto.FLOAT),
        ({"token_type_ids": INT64, "input_ids": INT64}, TensorProto.FLOAT16),
        ({"attention_mask": INT64, "input_ids": INT32}, TensorProto.DOUBLE),
    ],
)
@pytest.mark.parametrize("squeezed", [(), (1,), (0, 1)])
def test_every_usual_form_of_a_graph_is_read(
    tmp_path: Path, inputs: dict[str, int], kind: int, squeezed: tuple[int, ...]
) -> None:
    folder = write_toy(
        tmp_path / "toy", [("Neg", 100)], inputs=inputs, kind=kind, squeezed=squeezed, output="out"
    )
    model = opened(folder)
    # 3 special tokens, 2 of the query, 4 of the text
    assert score(model, "a b", "a b c d") == 9 - 100


def test_two_labels_are_the_log_odds_of_the_second(tmp_path: Path) -> None:
    folder = write_toy(tmp_path / "toy", [("Neg", 100), ("Identity", 30)], kind=TensorProto.FLOAT16)
    assert score(opened(folder), "a b", "a b c d") == (30 - 9) - (9 - 100)


def test_other_places_of_the_graph(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    (tmp_path / "onnx" / "model.onnx").write_bytes((tiny / "model.onnx").read_bytes())
    expected = score(opened(tiny), QUERY, TEXTS[0])
    assert score(opened(tmp_path), QUERY, TEXTS[0]) == expected
    (tmp_path / "onnx" / "model.onnx").rename(tmp_path / "onnx" / "model_O3.onnx")
    assert score(opened(tmp_path, file="onnx/model_O3.onnx"), QUERY, TEXTS[0]) == expected


@pytest.mark.parametrize(
    ("config", "tokenizer_config", "expected"),
    [
        (None, None, 512),
        ({"max_position_embeddings": 100}, None, 100),
        ({"max_position_embeddings": 514}, {"model_max_length": 90}, 90),
        ({"max_position_embeddings": 8192}, {"model_max_length": 10**30}, 512),
    ],
)
def test_the_model_says_how_much_it_reads(
    tmp_path: Path,
    config: dict[str, int] | None,
    tokenizer_config: dict[str, int] | None,
    expected: int,
) -> None:
    folder = write_toy(tmp_path / "toy", [("Neg", 0)])
    for name, content in (("config", config), ("tokenizer_config", tokenizer_config)):
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    model = opened(folder)
    assert model.max_tokens == expected
    assert score(model, "a", tokens_of("b", 9999)) == expected


def test_an_empty_folder_names_what_is_missing_and_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        open_cross_encoder(CrossEncoderSettings(folder=tmp_path))
    for part in (
        "query.cross_encoder.folder",
        str(tmp_path),
        "model.onnx or onnx/model.onnx and tokenizer.json",
        "optimum-cli export onnx",
    ):
        assert part in refusal.value.message


def test_a_graph_named_and_not_there_names_its_key(tiny: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cross_encoder\.file.*lacks model_int8\.onnx;"):
        opened(tiny, file="model_int8.onnx")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.onnx", "no graph", r"cross_encoder\.file: ONNX Runtime cannot open"),
        ("tokenizer.json", "{}", "cannot be read as a tokenizer"),
        ("config.json", "{", r"config\.json cannot be read as JSON"),
        ("config.json", '{"max_position_embeddings": 8}', r"max_tokens: 8 is not from 16"),
    ],
)
def test_a_damaged_file_is_named(tiny: Path, tmp_path: Path, name: str, content: str, said: str):
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError, match=said):
        opened(tmp_path)


@pytest.mark.parametrize("max_tokens", [15, 513])
def test_a_length_that_the_model_does_not_read_is_refused(tiny: Path, max_tokens: int) -> None:
    with pytest.raises(ConfigurationError, match=r"max_tokens: .*16 to the 512"):
        opened(tiny, max_tokens=max_tokens)


def test_a_length_that_the_graph_fails_on_is_found_at_once(tiny: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    with pytest.raises(ConfigurationError, match=r"max_tokens: .* cannot run on 600 tokens"):
        opened(tmp_path, max_tokens=600)


@pytest.mark.parametrize(
    ("columns", "more", "said"),
    [
        ([("Neg", 1)] * 3, {}, r"of shape \(1, 3\)"),
        ([("Log", 1)], {}, "not finite"),
        ([("Neg", 1)], {"inputs": {"attention_mask": INT64}}, "missing: input_ids"),
        ([("Neg", 1)], {"inputs": {"input_ids": INT64, "pixels": INT64}}, "missing: pixels"),
        ([("Neg", 1)], {"inputs": {"input_ids": TensorProto.FLOAT}}, "missing: input_ids"),
    ],
)
def test_what_is_no_cross_encoder_is_refused(tmp_path: Path, columns, more, said) -> None:
    folder = write_toy(tmp_path / "toy", columns, **more)
    with pytest.raises(ConfigurationError, match=said):
        opened(folder)


def test_a_tokenizer_of_single_texts_is_refused(tiny: Path, tmp_path: Path) -> None:
    saved = json.loads((tiny / "tokenizer.json").read_bytes())
    saved["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    (tmp_path / "model.onnx").write_bytes((tiny / "model.onnx").read_bytes())
    with pytest.raises(ConfigurationError, match="special tokens around a query and a text"):
        opened(tmp_path)
