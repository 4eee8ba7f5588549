"""How files that hold many documents are cut into them: rules of the section ``ingest.formats``.

Values only, validated once; the first rule whose glob matches a file holds for it. Nothing here
opens a file.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from common.config import Settings
from common.errors import InvalidArgument
from common.records import is_user_key
from ingestor.extraction.tables import placeholders
from ingestor.extraction.timestamps import Timestamps
from ingestor.selection import compile_glob

if TYPE_CHECKING:
    from typing import Self

_READERS_VERSION = 1  # goes up when a reader makes other documents of the same file and rule
_MAX_METADATA = 48
# What every document has beside its own metadata.
_TAKEN_KEYS = frozenset({"file_name", "file_type", "folder"})
_NO_KEY_CHARACTERS = re.compile(r"[^A-Za-z0-9_.-]")


class _Rule(Settings):
    match: str

    @field_validator("match")
    @classmethod
    def _is_glob(cls, glob: str) -> str:
        try:
            compile_glob(glob)
        except InvalidArgument as error:
            raise ValueError(error.message) from None
        return glob


class TableRule(_Rule):
    """Each row of a table, or record of a file of records, is a document.

    ``id`` names the column that identifies a row within its file; None means its number, from 0.
    The text is that of the ``text`` columns with blank lines between, or of ``template`` with
    ``{column}`` in it; with neither, every column as ``column: value``. ``metadata`` names columns,
    or columns by the keys they become; in a column's own name, what no key may have becomes ``_``.
    Dotted names reach into nested records. A SequenceFile has the columns ``key`` and ``value``.
    """

    format: Literal["parquet", "orc", "avro", "csv", "tsv", "jsonl", "sequencefile"]
    id: str | None = Field(default=None, min_length=1)
    text: tuple[str, ...] = ()
    template: str | None = None
    title: str | None = Field(default=None, min_length=1)
    metadata: dict[str, str] = Field(default_factory=dict)

    @field_validator("text", mode="before")
    @classmethod
    def _one_column(cls, columns: object) -> object:
        return [columns] if isinstance(columns, str) else columns

    @field_validator("metadata", mode="before")
    @classmethod
    def _keyed(cls, columns: object) -> object:
        if not isinstance(columns, list | tuple):
            return columns
        keyed = {_NO_KEY_CHARACTERS.sub("_", str(column)): column for column in columns}
        if len(keyed) < len(columns):
            raise ValueError("two columns become the same key: write a mapping of key to column")
        return keyed

    @field_validator("metadata")
    @classmethod
    def _has_user_keys(cls, columns: dict[str, str]) -> dict[str, str]:
        for key in columns:
            if not is_user_key(key) or key in _TAKEN_KEYS:
                raise ValueError(
                    f"{key!r} is reserved or not of the form [A-Za-z][A-Za-z0-9_.-]{{0,63}}: "
                    "write a mapping of another key to the column"
                )
        if len(columns) > _MAX_METADATA:
            raise ValueError(f"at most {_MAX_METADATA} columns")
        return columns

    @model_validator(mode="after")
    def _has_one_text(self) -> Self:
        if self.template is not None:
            if self.text:
                raise ValueError("text and template exclude each other: give one of them")
            try:
                named = placeholders(self.template)
            except ValueError as error:
                raise ValueError(f"template: {error}") from None
            if not named:
                raise ValueError("template: it names no {column}")
        return self


class LinesRule(_Rule):
    """Every so many lines of a text are a document, known by the number of its first, from 0."""

    format: Literal["lines"]
    lines: int = Field(default=1_000, ge=1, le=1_000_000)


class LogRule(_Rule):
    """Every window of time of a log is a document, known by the window's beginning.

    ``timestamp`` says how a line tells its time, in the directives of ``strptime``; see
    ``timestamps.py``. ``year`` is that of the first line where the timestamps tell none.
    """

    format: Literal["log"]
    window_s: int = Field(default=3600, ge=1, le=366 * 86_400)
    timestamp: str = "%Y-%m-%d %H:%M:%S"
    year: int | None = Field(default=None, ge=1970, le=9998)

    @model_validator(mode="after")
    def _tells_time(self) -> Self:
        try:
            Timestamps(self.timestamp, self.year)
        except ValueError as error:
            raise ValueError(f"timestamp: {error}") from None
        return self


FormatRule: TypeAlias = Annotated[TableRule | LinesRule | LogRule, Field(discriminator="format")]


def fields(rule: FormatRule) -> dict[str, Any]:
    """What of the rule shapes the documents, ready for JSON."""
    return rule.model_dump(mode="json", exclude={"match", "format"})


def recipe(rule: FormatRule) -> str:
    """A short digest that changes when the rule, or what its reader makes of a file, does."""
    shape = [_READERS_VERSION, rule.format, fields(rule)]
    encoded = json.dumps(shape, sort_keys=True).encode()
    return hashlib.blake2b(encoded, digest_size=8).hexdigest()
