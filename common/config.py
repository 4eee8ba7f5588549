"""Settings: YAML file, then ``SLUICE_...`` environment, then flags, into frozen pydantic models.

A service declares the sections it reads; ``load`` merges the three layers and validates once.
Unknown keys are errors, but a file or an environment may hold the sections of other services, so
that one file serves a whole installation. Nothing is read at import, and nothing but ``load`` reads
a file: the environment comes as an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECTIONS = (
    "chroma",
    "chunking",
    "client",
    "coordinator",
    "embedding",
    "indexer",
    "ingest",
    "query",
    "telemetry",
    "up",
)
PREFIX = "SLUICE_"


class Settings(BaseModel):
    """Base of every section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


M = TypeVar("M", bound=Settings)


def load(
    model: type[M],
    *,
    file: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> M:
    """Merge the layers and validate them.

    Args:
        model: its fields are the sections that the caller reads.
        file: a YAML mapping of sections; None for none.
        environ: ``SLUICE_SECTION__KEY=value``; deeper keys by further ``__``. A value is read as
            YAML, so that ``3``, ``true`` and ``[a, b]`` mean what they say.
        overrides: nested mapping, as flags give it; None values are left out.

    Raises:
        ConfigurationError: names the key and what is wrong with it.
    """
    merged: dict[str, Any] = {}
    for layer in (_from_file(file), _from_environ(environ), _given(overrides or {})):
        _merge(merged, layer)
    unknown = sorted(set(merged) - set(SECTIONS))
    if unknown:
        raise ConfigurationError(
            f"{unknown[0]}: no such section; the sections are {', '.join(SECTIONS)}"
        )
    own = {section: value for section, value in merged.items() if section in model.model_fields}
    try:
        return model.model_validate(own)
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from None


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{file}: is not YAML{place}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file}: must hold a mapping of sections")
    return {str(key): value for key, value in content.items()}


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX):
            continue
        section, *path = name.removeprefix(PREFIX).lower().split("__")
        if not path:
            raise ConfigurationError(f"{name}: write {PREFIX}SECTION__KEY")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        for key in reversed(path):
            value = {key: value}
        _merge(found, {section: value})
    return found


def _given(overrides: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for key, value in overrides.items():
        if isinstance(value, dict):
            kept[key] = _given(value)
        elif value is not None:
            kept[key] = value
    return kept


def _merge(target: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def _explain(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{key}: no such key{more}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}{more}"
