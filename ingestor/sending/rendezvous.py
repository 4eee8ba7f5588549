"""Which node a key belongs to, the same for everyone who knows the same nodes.

Highest random weight: each pair of node and key has a pseudo-random weight, and the node of the
greatest weight has the key. A node that goes gives its keys evenly to the others, one that comes
takes its share evenly from them, and no other key moves (Thaler and Ravishankar, "Using name-based
mappings to increase hit rates", IEEE/ACM Transactions on Networking 6(1), 1998).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def weight(key: str, node: str) -> int:
    """The 64-bit weight of a pair; a given pair has it in every process and release."""
    digest = hashlib.blake2b(f"{node}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def owner(key: str, nodes: Iterable[str]) -> str:
    """The node that has the key; there must be one. Equal weights go to the greater name."""
    return max(nodes, key=lambda node: (weight(key, node), node))
