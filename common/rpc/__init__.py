"""How Sluice speaks gRPC: servers, channels, deadlines and errors on the wire.

Servicers raise ``SluiceError`` and know nothing of statuses, traces or malformed messages; clients
get ``SluiceError`` back from ``translate_rpc_error``.
"""

from common.rpc.channel import ChannelSettings, open_channel
from common.rpc.deadline import Deadline
from common.rpc.health import HealthCondition
from common.rpc.server import (
    GrpcServer,
    ListenAddress,
    ServerSettings,
    ServiceBinding,
    run_until_signal,
    serve,
    stop_on_signals,
)
from common.rpc.status import is_unconnected, translate_rpc_error

__all__ = [
    "ChannelSettings",
    "Deadline",
    "GrpcServer",
    "HealthCondition",
    "ListenAddress",
    "ServerSettings",
    "ServiceBinding",
    "is_unconnected",
    "open_channel",
    "run_until_signal",
    "serve",
    "stop_on_signals",
    "translate_rpc_error",
]
