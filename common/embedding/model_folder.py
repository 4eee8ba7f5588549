"""A converted model on disk: its files, and the manifest that vouches for them.

    <models_dir>/<name>/{tokenizer.json, config.json, model.onnx, model.int8.onnx, manifest.json}

A folder without a whole manifest does not exist for Sluice, and a file that differs from its
digest in the manifest is never run.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
ONNX_FILES: dict[Literal["int8", "fp32"], str] = {"fp32": "model.onnx", "int8": "model.int8.onnx"}


class ModelManifest(BaseModel):
    """What a model folder holds.

    Attributes:
        model: the model's name.
        source_digest: SHA-256 in hex over the files it was converted from.
        converter_version: of the code that converted it.
        dimension: length of a vector.
        pooling: ``mean``, ``cls`` or ``unknown``.
        max_tokens: what the model reads of one text, special tokens included.
        files: SHA-256 in hex of each file beside the manifest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    source_digest: str
    converter_version: int
    dimension: int
    pooling: Literal["mean", "cls", "unknown"]
    max_tokens: int
    files: dict[str, str]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> ModelManifest | None:
    """Return the manifest of a complete folder, None where there is none or a file is missing.

    Raises:
        ConfigurationError: there is a manifest, and it cannot be read.
    """
    try:
        manifest = ModelManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise ConfigurationError(
            f"{folder / MANIFEST} cannot be read; "
            "run `sluice models fetch --force` or convert again"
        ) from error
    if all((folder / name).is_file() for name in manifest.files):
        return manifest
    return None


def check_files(folder: Path, manifest: ModelManifest, *names: str) -> None:
    """Compare files with the manifest.

    Raises:
        ConfigurationError: one of them differs.
    """
    for name in names:
        if file_digest(folder / name) != manifest.files.get(name):
            raise ConfigurationError(
                f"{folder / name} is not the file in its manifest; "
                "run `sluice models fetch --force` or convert again"
            )
