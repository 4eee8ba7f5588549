"""The coordinator for many processes: etcd, reached with aetcd's protocol layer.

aetcd brings etcd's messages and stubs; the channel, its credentials, the choice among endpoints and
the watch are held here, because aetcd's client offers none of TLS, several endpoints, the revision
of a transaction, or a watch that outlives its connection. A change is sent at most once: a call
whose outcome is unknown is reported, never repeated.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from aetcd import rpc

from common.coordination.coordinator import (
    Change,
    Condition,
    Entry,
    Operation,
    Outcome,
    Put,
    Snapshot,
    check_transaction,
    check_ttl,
    prefix_end,
)
from common.coordination.etcd_link import (
    Credentials,
    EtcdLink,
    Metadata,
    Unreachable,
    is_gone,
    translate,
)
from common.errors import CoordinatorUnavailable, NotFound, SluiceError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence

T = TypeVar("T")

_log = logging.getLogger(__name__)

_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 1.0
