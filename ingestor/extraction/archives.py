"""Archives, tar and zip: each member a document, read as a file of its name would be.

A member that cannot be read, holds no text or is larger than its bound is passed over; so are links
and archives within the archive. If no member gives a document the first one's reason is that of the
archive. Of members of one name the first counts. Hidden ones are left out and not counted. A tar
without the block of zeros that ends it is malformed once its members were read: it may be cut
between two of them, or be damaged there, and what it held before must not be taken for gone.
"""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Self
from urllib.parse import quote

from ingestor.extraction import expansion, file_text
from ingestor.extraction.extracted import MAX_FRAGMENT_CHARACTERS, Part, Refusal
from ingestor.extraction.file_types import archive_kind, declared_type, uncompressed
from ingestor.extraction.identities import Identities
from ingestor.extraction.worker_protocol import Reading
from ingestor.faults import Cause, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ingestor.extraction.worker_protocol import Limits

_BLOCK_BYTES = 2**20
# What zipfile raises for a member that is damaged, encrypted or packed in another way.
_BAD_MEMBER = (
    *(zipfile.BadZipFile, zlib.error, EOFError, RuntimeError),
    *(OSError, UnicodeError, lzma.LZMAError, struct.error),
)


@dataclass(frozen=True, slots=True)
class _Member:
    """A member as listed; ``read`` is None for a link or a device."""

    path: str
    size: int
    read: Callable[[], bytes] | None


def parts(reading: Reading, file: BinaryIO, limits: Limits) -> Iterator[Part | None]:
    """The documents of an archive; None for a member that is passed over."""
    listed = _zip(file, limits) if reading.kind == "zip" else _tar(reading, file, limits)
    seen = Identities()
    first: Refusal | None = None
    part: Part | None
    found = False
    try:
        for place, member in enumerate(listed):
            if _is_hidden(member.path):
                continue
            try:
                part = _part(member, limits)
            except Refusal as refusal:
                first = first or refusal
                part = None
            else:
                part = part if seen.add(part.fragment, place) is None else None
            found = found or part is not None
            yield part
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        message = f"it cannot be read as {reading.kind}: {str(error) or 'it ends too early'}"
        raise Refusal(Cause.MALFORMED, message[:200]) from None
    if first is not None and not found:
        raise first


def _tar(reading: Reading, file: BinaryIO, limits: Limits) -> Iterator[_Member]:
    if reading.codec:
        from ingestor.extraction.compression import expanding  # noqa: PLC0415 — not every archive needs it

        file = expanding(file, reading.codec, limits.max_expanded_bytes)
    with tarfile.open(
        fileobj=file,
        mode="r|" if reading.codec else "r:",
        bufsize=_BLOCK_BYTES,
        encoding="utf-8",  # whatever the locale here
        tarinfo=_Header,
    ) as archive:
        while (member := archive.next()) is not None:
            # Of millions of members only the one in hand is kept.
            archive.members = []  # type: ignore[attr-defined]  # missing in the stubs
            if member.isdir():
                continue
            # The ratio is that of the stream, checked as it expands.
            expansion.check(member.size, member.size, limits.max_expanded_bytes)
            read = partial(_content, archive, member) if member.isfile() else None
            yield _Member(member.name, member.size, read)
        if not getattr(archive, "is_ended", False):
            message = "it lacks the block that ends a tar: it is cut short, or damaged in between"
            raise Refusal(Cause.MALFORMED, message)


class _Header(tarfile.TarInfo):
    """A header that tells its archive when it is the block of zeros that ends it.

    ``TarFile.next`` takes a damaged header, or none, for the end too.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # missing in the stubs
            archive.is_ended = True  # type: ignore[attr-defined]  # ours
            raise


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened = archive.extractfile(member)
    return b"" if opened is None else opened.read()


def _zip(file: BinaryIO, limits: Limits) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        listed = [member for member in archive.infolist() if not member.is_dir()]
        packed = file.seek(0, io.SEEK_END)
        expanded = sum(member.file_size for member in listed)
        expansion.check(expanded, packed, limits.max_expanded_bytes)
        for member in listed:
            yield _Member(member.filename, member.file_size, partial(_unzipped, archive, member))


def _unzipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The member; zipfile gives no more bytes than the directory declares."""
    try:
        return archive.read(member)
    except _BAD_MEMBER as error:
        message = f"it cannot be expanded: {type(error).__name__}"
        raise Refusal(Cause.MALFORMED, message) from None


def _part(member: _Member, limits: Limits) -> Part:
    name, codec = uncompressed(member.path.rpartition("/")[2])
    media_type = declared_type(name)
    path = member.path.removeprefix("./")
    fragment = f"member={quote(path, errors='surrogateescape')}"
    if member.read is None:
        raise Refusal(Cause.NOT_A_FILE, "it is a link, or no file")
    if archive_kind(name):
        raise Refusal(Cause.UNSUPPORTED_TYPE, "archives within archives are not opened")
    if isinstance(media_type, Fault):
        raise Refusal(Cause(media_type.cause), media_type.message)
    if member.size > limits.max_member_bytes:
        message = f"a member expands to over {limits.max_member_bytes} bytes"
        raise Refusal(Cause.TOO_LARGE, message)
    if len(fragment) > MAX_FRAGMENT_CHARACTERS:
        raise Refusal(Cause.UNDECODABLE_NAME, "the path of a member is too long")
    shown = name.encode("utf-8", "replace").decode()
    extracted = file_text.extract(Reading("file", shown, media_type, codec), member.read(), limits)
    return Part(fragment, extracted)


def _is_hidden(path: str) -> bool:
    return any(
        (name.startswith(".") and name not in {".", ".."}) or name == "__MACOSX"
        for name in path.split("/")
    )
