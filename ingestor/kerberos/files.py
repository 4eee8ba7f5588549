"""Reads the two file formats of MIT Kerberos: the keytab and the credential cache of type FILE.

Only names and times are read: keys and tickets are stepped over and never leave this module. It
opens no file and calls no KDC.

Formats: https://web.mit.edu/kerberos/krb5-latest/doc/formats/keytab_file_format.html and
https://web.mit.edu/kerberos/krb5-latest/doc/formats/ccache_file_format.html.
"""

from __future__ import annotations

from dataclasses import dataclass

_KEYTAB_VERSION = 0x0502
_CACHE_VERSIONS = (0x0503, 0x0504)
_CACHE_WITH_HEADER = 0x0504
_TIME_OFFSET_TAG = 1
_CONFIGURATION = "X-CACHECONF:"  # the realm of entries that hold settings instead of tickets
_ESCAPES = str.maketrans({mark: f"\\{mark}" for mark in "\\/@"})


class MalformedError(ValueError):
    """The bytes are no such file, or are cut off; the message says which."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket for the service ``server``, valid from ``start`` to ``end`` (seconds since 1970)."""

    server: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class CredentialCache:
    """Whose tickets they are, and which.

    ``time_offset_s`` added to this machine's time gives the KDC's, by which the tickets count.
    """

    principal: str
    time_offset_s: int
    tickets: tuple[Ticket, ...]

    @property
    def granting_ticket(self) -> Ticket | None:
        """The ticket by which all others are had, which ends last if there are several."""
        granting = [t for t in self.tickets if t.server.startswith("krbtgt/")]
        return max(granting, key=lambda ticket: ticket.end, default=None)


def keytab_principals(content: bytes) -> tuple[str, ...]:
    """The principals that have a key in a keytab, in its order.

    Raises:
        MalformedError: it is no keytab of version 2.
    """
    file = _Reader(content, "keytab")
    if file.unsigned(2) != _KEYTAB_VERSION:
        raise MalformedError("it does not begin like one")
    principals: dict[str, None] = {}
    while not file.at_end:
        size = file.signed(4)
        if size == 0:
            break
        entry = _Reader(file.take(abs(size)), "keytab")
        if size < 0:
            continue  # a hole, where an entry was removed
        count = entry.unsigned(2)
        realm = entry.text(2)
        principals[_name([entry.text(2) for _ in range(count)], realm)] = None
    return tuple(principals)


def read_cache(content: bytes) -> CredentialCache:
    """The tickets of a credential cache, in its order.

    Raises:
        MalformedError: it is no credential cache of version 3 or 4.
    """
    file = _Reader(content, "credential cache")
    version = file.unsigned(2)
    if version not in _CACHE_VERSIONS:
        raise MalformedError("it does not begin like a credential cache")
    offset_s = 0
    if version == _CACHE_WITH_HEADER:
        header = _Reader(file.take(file.unsigned(2)), "credential cache")
        while not header.at_end:
            tag = header.unsigned(2)
            field = _Reader(header.take(header.unsigned(2)), "credential cache")
            if tag == _TIME_OFFSET_TAG:
                offset_s = field.signed(4)
    principal, _ = _cache_principal(file)
    tickets = []
    while not file.at_end:
        ticket, realm = _credential(file, repeated_type=version != _CACHE_WITH_HEADER)
        if realm != _CONFIGURATION:
            tickets.append(ticket)
    return CredentialCache(principal, offset_s, tuple(tickets))


def _credential(file: _Reader, *, repeated_type: bool) -> tuple[Ticket, str]:
    _cache_principal(file)  # the client
    server, realm = _cache_principal(file)
    file.take(4 if repeated_type else 2)
    file.take(file.unsigned(4))  # the key
    authenticated, start, end, _renewable = (file.unsigned(4) for _ in range(4))
    file.take(1 + 4)  # whether the key is a session's, flags
    for _list in ("addresses", "authorization data"):
        for _ in range(file.unsigned(4)):
            file.take(2)
            file.take(file.unsigned(4))
    for _ticket in ("the ticket", "the second ticket"):
        file.take(file.unsigned(4))
    return Ticket(server, start or authenticated, end), realm


def _cache_principal(file: _Reader) -> tuple[str, str]:
    """Name and realm."""
    file.take(4)  # the type of the name
    count = file.unsigned(4)
    realm = file.text(4)
    return _name([file.text(4) for _ in range(count)], realm), realm


def _name(components: list[str], realm: str) -> str:
    """As people write it: ``primary/instance@REALM``, with a backslash before what is no mark."""
    return "/".join(part.translate(_ESCAPES) for part in components) + f"@{realm}"


class _Reader:
    """Takes big-endian numbers and counted bytes from the front; MalformedError past the end."""

    def __init__(self, content: bytes, kind: str) -> None:
        self._content = content
        self._kind = kind
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._content)

    def take(self, size: int) -> bytes:
        taken = self._content[self._at : self._at + size]
        if len(taken) < size:
            raise MalformedError(f"the {self._kind} is cut off")
        self._at += size
        return taken

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def signed(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big", signed=True)

    def text(self, size: int) -> str:
        """Text that its length in so many bytes precedes."""
        return self.take(self.unsigned(size)).decode("utf-8", "replace")
