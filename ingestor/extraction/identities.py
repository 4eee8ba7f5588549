"""The identities met in one file: whether one came before, and where, in bounded memory.

An open-addressing table of 128-bit digests: 20 bytes a slot, at most three quarters of them taken,
so that six million identities cost 168 MB and a thousand cost nothing worth naming.
"""

from __future__ import annotations

import hashlib

from ingestor.extraction.extracted import Refusal
from ingestor.faults import Cause

_DIGEST_BYTES = 16
_PLACE_BYTES = 4
_SLOT_BYTES = _DIGEST_BYTES + _PLACE_BYTES
_MAX_PLACE = 2 ** (8 * _PLACE_BYTES) - 1
_FIRST_SLOTS = 2**12
_MAX_SLOTS = 2**23
MAX_IDENTITIES = _MAX_SLOTS * 3 // 4


class Identities:
    """Each identity with the place (a row's number) where it was first met."""

    def __init__(self) -> None:
        self._slots = _FIRST_SLOTS
        self._table = bytearray(self._slots * _SLOT_BYTES)
        self._taken = 0

    def add(self, identity: str, place: int) -> int | None:
        """Remember it; the place where it was met before, None if it was not.

        Refusal if there are more than ``MAX_IDENTITIES``.
        """
        if self._taken >= self._slots * 3 // 4:
            self._grow()
        digest = hashlib.blake2b(
            identity.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES
        ).digest()
        return self._insert(digest, place + 1)

    def _insert(self, digest: bytes, place: int) -> int | None:
        mask = self._slots - 1
        slot = int.from_bytes(digest[:8], "big") & mask
        table = self._table
        while True:
            start = slot * _SLOT_BYTES
            end = start + _DIGEST_BYTES
            held = int.from_bytes(table[end : end + _PLACE_BYTES], "big")
            if not held:
                table[start:end] = digest
                table[end : end + _PLACE_BYTES] = min(place, _MAX_PLACE).to_bytes(
                    _PLACE_BYTES, "big"
                )
                self._taken += 1
                return None
            if table[start:end] == digest:
                return held - 1
            slot = (slot + 1) & mask

    def _grow(self) -> None:
        if self._slots >= _MAX_SLOTS:
            message = (
                f"it has over {MAX_IDENTITIES} identities, which cannot be told apart in memory: "
                "leave out the rule's id, so that rows are known by their number, or split the file"
            )
            raise Refusal(Cause.TOO_LARGE, message)
        old, self._table = self._table, bytearray(2 * self._slots * _SLOT_BYTES)
        self._slots *= 2
        self._taken = 0
        for start in range(0, len(old), _SLOT_BYTES):
            end = start + _DIGEST_BYTES
            if place := int.from_bytes(old[end : end + _PLACE_BYTES], "big"):
                self._insert(bytes(old[start:end]), place)
