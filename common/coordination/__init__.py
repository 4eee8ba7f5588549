"""What services agree on: collections, index versions, the active pointers, running instances.

`Coordinator` is the seam; `IndexRegistry` changes what stands behind it, `Routes` and `Instances`
follow it, `hold` keeps all but one from something.
"""

from common.coordination.advertising import advertised
from common.coordination.coordinator import (
    Change,
    Condition,
    Coordinator,
    Delete,
    DeletePrefix,
    Entry,
    Lease,
    Operation,
    Outcome,
    Put,
    Snapshot,
    Watch,
)
from common.coordination.instances import Instances
from common.coordination.keys import root_lock
from common.coordination.lock import HeldLock, hold
from common.coordination.records import (
    ChunkingSpec,
    CollectionState,
    Instance,
    Pointer,
    VersionRecord,
    VersionState,
)
from common.coordination.registry import IndexRegistry
from common.coordination.routes import Routes
from common.coordination.settings import CoordinatorSettings, open_coordinator

__all__ = [
    "Change",
    "ChunkingSpec",
    "CollectionState",
    "Condition",
    "Coordinator",
    "CoordinatorSettings",
    "Delete",
    "DeletePrefix",
    "Entry",
    "HeldLock",
    "IndexRegistry",
    "Instance",
    "Instances",
    "Lease",
    "Operation",
    "Outcome",
    "Pointer",
    "Put",
    "Routes",
    "Snapshot",
    "VersionRecord",
    "VersionState",
    "Watch",
    "advertised",
    "hold",
    "open_coordinator",
    "root_lock",
]
