"""What a file's name, or its first bytes, say about its format.

A name may end in the suffix of a compression, which is looked through: ``a.log.gz`` is ``a.log``.
Nothing here opens a file.
"""

from __future__ import annotations

import mimetypes
from pathlib import PurePosixPath

from common import media_types
from ingestor.faults import Cause, Fault, FaultStage

PDF = "application/pdf"
HTML = "text/html"
JSON_LINES = "application/jsonl"

_CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_PACKED_TAR = {".tgz": "gzip", ".tzst": "zstd", ".tbz2": "bz2"}
_TABLES = {
    ".parquet": "parquet",
    ".orc": "orc",
    ".avro": "avro",
    ".seq": "sequencefile",
    ".sequencefile": "sequencefile",
}
_TABLE_MARKS = {
    b"PAR1": "parquet",
    b"ORC": "orc",
    b"Obj\x01": "avro",
    b"SEQ\x06": "sequencefile",
}
_KNOWN_TYPES = mimetypes.MimeTypes()  # Python's own table, whatever this machine adds to it


def uncompressed(name: str) -> tuple[str, str]:
    """The name without its compression's suffix, and the codec: gzip, zstd, bz2 or empty."""
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if codec := _CODECS.get(suffix, ""):
        return name[: -len(suffix)], codec
    if codec := _PACKED_TAR.get(suffix, ""):
        return f"{name[: -len(suffix)]}.tar", codec
    return name, ""


def archive_kind(name: str) -> str:
    """``tar`` or ``zip``, or empty where the name, without compression, is no archive's."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix[1:] if suffix in {".tar", ".zip"} else ""


def declared_type(name: str) -> str | Fault | None:
    """What a name without compression's suffix says about the format.

    A media type; None where only the content can tell; a fault for what cannot hold text and for
    what holds many documents in a way that must be configured.
    """
    known = media_types.guess(name)
    if known is not None:
        return known
    if table := _TABLES.get(PurePosixPath(name).suffix.lower()):
        return _unruled(table)
    other, packed = _KNOWN_TYPES.guess_type(name)
    if packed is not None:
        return _unsupported(f"a file packed with {packed}")
    if other is None or media_types.is_supported(other):
        return other
    family, _, kind = other.partition("/")
    opaque = kind in {"octet-stream", "zip", "x-tar", "java-archive", "wasm", "x-python-code"}
    opaque = opaque or kind.startswith("vnd.") or family in {"image", "audio", "video", "font"}
    return _unsupported(other) if opaque else None


def sniffed_type(data: bytes) -> str | Fault:
    """The media type that the content tells, where the name told none."""
    if data.startswith(b"%PDF-"):
        return PDF
    for mark, table in _TABLE_MARKS.items():
        # ORC's mark is three letters: a text may begin with them.
        if data.startswith(mark) and b"\0" in data[:4096]:
            return _unruled(table)
    return media_types.PLAIN_TEXT


def _unsupported(what: str) -> Fault:
    return Fault(FaultStage.EXTRACT, Cause.UNSUPPORTED_TYPE, f"no text is taken from {what}")


def _unruled(table: str) -> Fault:
    message = (
        f"it is a table ({table}): say under ingest.formats which columns are text, such as "
        f'{{match: "*.{table}", format: {table}, text: [COLUMN]}}'
    )
    return Fault(FaultStage.EXTRACT, Cause.UNSUPPORTED_TYPE, message)
