"""What services agree on: collections, index versions, the active pointers, running instances.

`Coordinator` is the seam; `IndexRegistry`, `Builds` and `StatisticsRegistry` change what stands
behind it, `Routes` and `Instances` follow it, `hold` keeps all but one from something, `Pins` keep
a version from being deleted, and `collectable` says which versions nobody needs.
"""

from common.coordination.advertising import advertised
from common.coordination.builds import Builds
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
from common.coordination.keys import (
    build_lock,
    collector_lock,
    maintenance_lock,
    pins_prefix,
    root_lock,
)
from common.coordination.lock import HeldLock, hold
from common.coordination.pins import Pin, Pins, maintenance, pinned
from common.coordination.records import (
    Build,
    ChunkingSpec,
    CollectionState,
    Forced,
    GoldenScore,
    Instance,
    Pointer,
    Verdict,
    VersionRecord,
    VersionState,
    WordStatisticsRecord,
)
from common.coordination.registry import IndexRegistry
from common.coordination.retention import collectable
from common.coordination.routes import Routes
from common.coordination.settings import CoordinatorSettings, open_coordinator
from common.coordination.statistics import Seen, StatisticsRegistry

__all__ = [
    "Build",
    "Builds",
    "Change",
    "ChunkingSpec",
    "CollectionState",
    "Condition",
    "Coordinator",
    "CoordinatorSettings",
    "Delete",
    "DeletePrefix",
    "Entry",
    "Forced",
    "GoldenScore",
    "HeldLock",
    "IndexRegistry",
    "Instance",
    "Instances",
    "Lease",
    "Operation",
    "Outcome",
    "Pin",
    "Pins",
    "Pointer",
    "Put",
    "Routes",
    "Seen",
    "Snapshot",
    "StatisticsRegistry",
    "Verdict",
    "VersionRecord",
    "VersionState",
    "Watch",
    "WordStatisticsRecord",
    "advertised",
    "build_lock",
    "collectable",
    "collector_lock",
    "hold",
    "maintenance",
    "maintenance_lock",
    "open_coordinator",
    "pinned",
    "pins_prefix",
    "root_lock",
]
