"""How a client finds the servers of a service and balances over them.

    async with open_fleet("etcd:///sluice/query", ChannelSettings(), service="query") as fleet:
        stub = QueryServiceStub(balanced(fleet, Retry(), repeat=True))
        answer = await stub.Search(request, timeout=10)
        async with fleet.one() as channel:  # a stream stays with one server
            call = QueryServiceStub(channel).SearchStream()

Errors are those of ``common.errors``; they name the addresses that were tried.
"""

from common.discovery.attempts import Attempts
from common.discovery.backoff import Retry, delay_s, is_passing
from common.discovery.balanced import balanced
from common.discovery.failures import Unannounced, Unconnected
from common.discovery.fleet import Fleet
from common.discovery.opening import announcing, open_fleet
from common.discovery.target import Target

__all__ = [
    "Attempts",
    "Fleet",
    "Retry",
    "Target",
    "Unannounced",
    "Unconnected",
    "announcing",
    "balanced",
    "delay_s",
    "is_passing",
    "open_fleet",
]
