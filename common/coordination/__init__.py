"""What services agree on: collections, index versions, the active pointers, running instances.

`Coordinator` is the seam; `IndexRegistry` changes what stands behind it, `Routes` follows it.
"""

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
    "IndexRegistry",
    "Instance",
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
    "open_coordinator",
]
