"""Which indexer has which document: evenly, the same for all, and moving no more than it must."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter

from ingestor.sending.rendezvous import owner, weight

NODES = [f"10.0.0.{number}:50051" for number in range(1, 6)]
KEYS = [hashlib.blake2b(b"%d" % number, digest_size=16).hexdigest() for number in range(10_000)]


def test_keys_spread_evenly():
    shares = Counter(owner(key, NODES) for key in KEYS)
    assert set(shares) == set(NODES)
    # Binomial with p = 1/5: a standard deviation of 40.
    assert all(abs(share - 2000) < 200 for share in shares.values())


def test_the_order_of_the_nodes_does_not_matter():
    assert all(owner(key, NODES) == owner(key, NODES[::-1]) for key in KEYS[:1000])


def test_a_node_that_goes_moves_its_own_keys_alone_and_evenly():
    gone, *rest = NODES
    before = {key: owner(key, NODES) for key in KEYS}
    after = {key: owner(key, rest) for key in KEYS}
    moved = [key for key in KEYS if before[key] != after[key]]
    assert all(before[key] == gone for key in moved)
    assert len(moved) == Counter(before.values())[gone]
    heirs = Counter(after[key] for key in moved)
    assert all(abs(heirs[node] - len(moved) / 4) < 100 for node in rest)


def test_one_that_comes_takes_its_share_and_nothing_else_moves():
    before = {key: owner(key, NODES[:-1]) for key in KEYS}
    after = {key: owner(key, NODES) for key in KEYS}
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {after[key] for key in moved} == {NODES[-1]}
    assert abs(len(moved) - 2000) < 200


def test_every_process_finds_the_same_owner():
    program = (
        "import sys; from ingestor.sending.rendezvous import owner; "
        "print(owner(sys.argv[1], sys.argv[2:]))"
    )
    command = [sys.executable, "-c", program, KEYS[7], *NODES]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert there == owner(KEYS[7], NODES)
    assert weight("a", "n") == int(hashlib.blake2b(b"n\0a", digest_size=8).hexdigest(), 16)
