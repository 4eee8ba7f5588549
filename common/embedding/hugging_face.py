"""Reads what a Hugging Face sentence-transformers folder says about its model.

It must never guess where a folder asks for more than Sluice computes (another pooling, a dense
layer on top): wrong vectors look exactly like right ones.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from common.embedding.model_folder import CONFIG, TOKENIZER, file_digest
from common.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

POOLING_CONFIG = "1_Pooling/config.json"
SENTENCE_CONFIG = "sentence_bert_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
MODULES = "modules.json"
WEIGHTS = "model.safetensors"
_ONNX = ("model.onnx", "onnx/model.onnx")  # the second is where the Hub keeps exports
_SIDE_FILES = (CONFIG, TOKENIZER, POOLING_CONFIG, SENTENCE_CONFIG, TOKENIZER_CONFIG, MODULES)
_MODULES = {"Transformer", "Pooling", "Normalize"}
_UNSTATED_MAX_TOKENS = 512

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A folder to convert from.

    Attributes:
        folder: where it lies.
        graph: its model.onnx, or None where there are only weights.
        pooling: of 1_Pooling/config.json; None where the folder does not say.
        max_tokens: what the model reads of one text, special tokens included.
    """

    folder: Path
    graph: Path | None
    pooling: Pooling | None
    max_tokens: int

    def digest(self) -> str:
        """SHA-256 in hex over names and digests of every file that shapes the vectors."""
        names = [name for name in _SIDE_FILES if (self.folder / name).is_file()]
        if self.graph is None:
            names.append(WEIGHTS)
        else:
            # the graph, and the files some exports keep its weights in
            beside = sorted(self.graph.parent.glob(f"{self.graph.name}?*"))
            names += [p.relative_to(self.folder).as_posix() for p in (self.graph, *beside)]
        total = hashlib.sha256()
        for name in names:
            total.update(f"{name}\0{file_digest(self.folder / name)}\n".encode())
        return total.hexdigest()


def read_source(folder: Path) -> SourceModel:
    """Look at a Hugging Face folder.

    Raises:
        ConfigurationError: a file is missing or unreadable, or the model needs what Sluice lacks.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"embedding.model: {folder} is not a folder")
    graph = next((folder / name for name in _ONNX if (folder / name).is_file()), None)
    needed = [TOKENIZER] if graph else [TOKENIZER, CONFIG, WEIGHTS]
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"embedding.model: {folder} lacks {', '.join(missing)}; a model folder holds "
            f"{TOKENIZER} and either model.onnx or {CONFIG} with {WEIGHTS}"
        )
    modules = {str(module.get("type", "")).split(".")[-1] for module in _load(folder / MODULES, [])}
    if modules - _MODULES:
        raise ConfigurationError(
            f"{folder / MODULES} asks for {', '.join(sorted(modules - _MODULES))}; "
            f"only {', '.join(sorted(_MODULES))} are computed here"
        )
    return SourceModel(folder, graph, _pooling(folder), _max_tokens(folder))


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json, empty where there is none."""
    config: dict[str, Any] = _load(folder / CONFIG, {})
    return config


def _load(path: Path, absent: Any) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return absent
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read as JSON") from error


def _pooling(folder: Path) -> Pooling | None:
    config = _load(folder / POOLING_CONFIG, None)
    if config is None:
        return None
    modes = {name for name, on in config.items() if name.startswith("pooling_mode_") and on is True}
    if modes == {"pooling_mode_mean_tokens"}:
        return "mean"
    if modes == {"pooling_mode_cls_token"}:
        return "cls"
    raise ConfigurationError(
        f"{folder / POOLING_CONFIG} asks for {', '.join(sorted(modes)) or 'no pooling'}; "
        "only mean or CLS pooling is computed here"
    )


def _max_tokens(folder: Path) -> int:
    """Return the smallest limit that the folder states."""
    stated = (
        _load(folder / SENTENCE_CONFIG, {}).get("max_seq_length"),
        # an unlimited tokenizer states 1e30
        _load(folder / TOKENIZER_CONFIG, {}).get("model_max_length"),
        read_config(folder).get("max_position_embeddings"),
    )
    limits = [int(limit) for limit in stated if isinstance(limit, int | float) and limit > 0]
    return min(limits, default=_UNSTATED_MAX_TOKENS)
