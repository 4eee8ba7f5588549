"""A cross-encoder on disk: pairs of query and text to tokens, and tokens to a score.

The folder is what exporters to ONNX write. What it asks for and this module does not do is refused
when it is opened, where a run on a pair of full length shows it; it must never be guessed at. One
pair is one run, on the thread that calls (docs/adr/0016).

Pair encoding: Devlin et al. 2019, [CLS] query [SEP] text [SEP]; which special tokens those are in a
model comes from its own tokenizer.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from common.embedding.onnx_embedder import open_session
from common.embedding.tokenizer import open_tokenizer, token_ids
from common.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

GRAPHS: Final = ("model.onnx", "onnx/model.onnx")
TOKENIZER: Final = "tokenizer.json"
DEFAULT_MAX_TOKENS: Final = 512
LEAST_TOKENS: Final = 16
_KEY: Final = "query.cross_encoder"
_INTEGERS: Final[dict[str, np.dtype[Any]]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
}
_EXPORT: Final = (
    "where the network allows, `optimum-cli export onnx --task text-classification --model NAME "
    "FOLDER` writes such a folder"
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """Token ids and token types of one pair, special tokens included."""

    ids: list[int]
    types: list[int]


@dataclass(frozen=True, slots=True)
class _Template:
    """The special tokens around a query and a text: ids before, between and after, with types."""

    before: Pair
    between: Pair
    after: Pair
    query_type: int
    text_type: int

    def __len__(self) -> int:
        return sum(len(part.ids) for part in (self.before, self.between, self.after))

    def join(self, query: list[int], text: list[int]) -> Pair:
        types = [self.query_type] * len(query), [self.text_type] * len(text)
        return Pair(
            [*self.before.ids, *query, *self.between.ids, *text, *self.after.ids],
            [*self.before.types, *types[0], *self.between.types, *types[1], *self.after.types],
        )


class PairModel:
    """Scores one pair of texts. Safe for threads.

    Args:
        folder: as `CrossEncoderSettings.folder`.
        file: the graph inside it; empty for the usual names.
        max_tokens: of a pair; 0 for what the model reads, at most 512.

    Raises:
        ConfigurationError: a file is missing or wrong, or the model is no cross-encoder.
    """

    def __init__(self, folder: Path, *, file: str, max_tokens: int) -> None:
        graph = _graph(folder, file)
        self._tokenizer = open_tokenizer(folder / TOKENIZER)
        self._template = _template(self._tokenizer, folder)
        self.max_tokens = _max_tokens(folder, max_tokens)
        try:
            self._session = open_session(graph)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{_KEY}.file: ONNX Runtime cannot open {graph}; export the model again"
            ) from error.__cause__
        self._inputs = _inputs(self._session, graph)
        self._output = _output(self._session, graph)
        self._probe(graph)

    def question(self, query: str) -> list[int]:
        """Token ids of a query, cut so that it leaves half of the room to a text."""
        return token_ids(self._tokenizer, query)[: self._room() // 2]

    def pair(self, question: list[int], text: str) -> Pair:
        """Put a text beside a query, cut to what the model reads."""
        room = self._room() - len(question)
        return self._template.join(question, token_ids(self._tokenizer, text)[:room])

    def score(self, pair: Pair) -> float:
        """Score a pair; NaN where the model fails on it."""
        try:
            return _single(self._run(pair))
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no public base
            # the message may show what was read, the class does not
            name = type(error).__name__
            _log.warning("cross-encoder failed on a pair of %d tokens: %s", len(pair.ids), name)
            return math.nan

    def full_pair(self) -> Pair:
        """A pair of the greatest length, to probe and measure with."""
        return self.pair(self.question("probe"), "probe " * self.max_tokens)

    def _room(self) -> int:
        return self.max_tokens - len(self._template)

    def _run(self, pair: Pair) -> NDArray[Any]:
        given = {
            "input_ids": pair.ids,
            "attention_mask": [1] * len(pair.ids),
            "token_type_ids": pair.types,
        }
        feed = {name: np.array([given[name]], kind) for name, kind in self._inputs.items()}
        logits: NDArray[Any] = self._session.run([self._output], feed)[0]
        return logits

    def _probe(self, graph: Path) -> None:
        """Run the model on a pair of full length."""
        try:
            logits = self._run(self.full_pair())
        except Exception as error:  # onnxruntime's exceptions have no public base
            raise ConfigurationError(
                f"{_KEY}.max_tokens: {graph} cannot run on {self.max_tokens} tokens "
                f"({type(error).__name__}); set what the model reads, take the tokenizer.json that "
                "belongs to it, and export it with axes of any length"
            ) from error
        if logits.shape not in {(), (1,), (1, 1), (1, 2)}:
            raise ConfigurationError(
                f"{_KEY}.folder: {graph} gives {self._output} of shape {logits.shape} for one "
                "pair; a cross-encoder gives one score, or two of which the second is relevance"
            )
        if not math.isfinite(_single(logits)):
            raise ConfigurationError(
                f"{_KEY}.file: {graph} gives a score that is not finite; export it again as fp32"
            )


def _graph(folder: Path, file: str) -> Path:
    """Find the graph, and see that the tokenizer is there."""
    names = (file,) if file else GRAPHS
    found = [folder / name for name in names if (folder / name).is_file()]
    missing = [] if found else [" or ".join(names)]
    if not (folder / TOKENIZER).is_file():
        missing.append(TOKENIZER)
    if missing:
        key = "file" if file and not found else "folder"
        raise ConfigurationError(f"{_KEY}.{key}: {folder} lacks {' and '.join(missing)}; {_EXPORT}")
    return found[0]


def _max_tokens(folder: Path, wanted: int) -> int:
    limits = (
        _read_json(folder / "config.json").get("max_position_embeddings"),
        _read_json(folder / "tokenizer_config.json").get("model_max_length"),
    )
    own = min((limit for limit in limits if isinstance(limit, int)), default=1 << 30)
    tokens = wanted or min(own, DEFAULT_MAX_TOKENS)
    if not LEAST_TOKENS <= tokens <= own:
        raise ConfigurationError(
            f"{_KEY}.max_tokens: {tokens} is not from {LEAST_TOKENS} to the {own} that the model "
            f"in {folder} reads; set 0 for what it reads"
        )
    return tokens


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{_KEY}.folder: {path} cannot be read as JSON") from error
    return content if isinstance(content, dict) else {}


def _template(tokenizer: Any, folder: Path) -> _Template:  # noqa: ANN401 - tokenizers ships no types
    """Take the special tokens of a pair from how the tokenizer encodes one."""
    encoding = tokenizer.encode("a", "b")
    sides: list[int | None] = encoding.sequence_ids
    given = [side for side in sides if side is not None]
    if None not in sides or set(given) != {0, 1} or given != sorted(given):
        raise ConfigurationError(
            f"{_KEY}.folder: {folder / TOKENIZER} does not put special tokens around a query and a "
            "text after it; take the tokenizer.json of the cross-encoder itself"
        )
    query, text = sides.index(0), sides.index(1)
    query_end, text_end = query + given.count(0), text + given.count(1)

    def part(start: int, end: int) -> Pair:
        return Pair(encoding.ids[start:end], encoding.type_ids[start:end])

    return _Template(
        before=part(0, query),
        between=part(query_end, text),
        after=part(text_end, len(sides)),
        query_type=encoding.type_ids[query],
        text_type=encoding.type_ids[text],
    )


def _inputs(session: Any, graph: Path) -> dict[str, np.dtype[Any]]:  # noqa: ANN401 - onnxruntime ships no types
    """The inputs that the graph declares, with their kind of integer."""
    declared = {value.name: value.type for value in session.get_inputs()}
    known = {"input_ids", "attention_mask", "token_type_ids"}
    wrong = set(declared) - known | {"input_ids"} - set(declared)
    wrong |= {name for name, kind in declared.items() if kind not in _INTEGERS}
    if wrong:
        raise ConfigurationError(
            f"{_KEY}.folder: {graph} must read input_ids and, at most, attention_mask and "
            f"token_type_ids, as integers; wrong or missing: {', '.join(sorted(wrong))}"
        )
    return {name: _INTEGERS[kind] for name, kind in declared.items()}


def _output(session: Any, graph: Path) -> str:  # noqa: ANN401 - as above
    names: list[str] = [value.name for value in session.get_outputs()]
    if "logits" in names:
        return "logits"
    if len(names) == 1:
        return names[0]
    raise ConfigurationError(
        f"{_KEY}.folder: {graph} gives {', '.join(names)}; a cross-encoder gives logits"
    )


def _single(logits: NDArray[Any]) -> float:
    """The score of one pair: its logit, or the log-odds of the second of two labels."""
    first, *second = logits.ravel().tolist()
    return float(second[0] - first if second else first)
