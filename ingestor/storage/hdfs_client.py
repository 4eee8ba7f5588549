"""The native HDFS client, in a shape that can be renewed after it hung, and with bounds of its own.

hdfs-native waits without a bound for a name node that accepts connections and does not answer, and
asks the name nodes of a nameservice in their configured order. So a client that ran out of time is
left behind, and the next one begins with the next name node. Nothing here knows what is read.
"""

from __future__ import annotations

import errno
import threading
import time
from concurrent.futures import wait
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import hdfs_native

from ingestor.storage.daemon_threads import DaemonThreads
from ingestor.storage.hadoop_configuration import (
    NAME_NODES_OF,
    configuration,
    configuration_folder,
    with_port,
)
from ingestor.storage.hdfs_errors import RefusedError, translated
from ingestor.storage.outage import Outage, is_passing, refused_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingestor.settings import HdfsSettings

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 64

# Its own retries are few and quick: those of the source are what bounds an outage.
_DEFAULTS = {
    "dfs.client.failover.max.attempts": "3",
    "dfs.client.failover.sleep.base.millis": "100",
    "dfs.client.failover.sleep.max.millis": "1000",
}


class HdfsClient:
    """One cluster. Errors of ``native`` are translated by ``hdfs_errors.translated``.

    Args:
        authority: a nameservice, or HOST or HOST:PORT of a name node.
        settings: the options in it are laid over the cluster's configuration files.

    Raises:
        OSError: the configuration does not tell of the nameservice, or is malformed.
    """

    def __init__(self, authority: str, settings: HdfsSettings) -> None:
        values = configuration(settings)
        self._authority = with_port(authority, values)
        folder = configuration_folder(settings)
        self._folder = None if folder is None else str(folder)
        self._options = {
            # so that each of three replicas may be tried within one call
            "dfs.client.socket-timeout": str(int(settings.timeout_s * 1000 / 3)),
            **_DEFAULTS,
            **settings.options,
        }
        self._name_nodes_key = f"{NAME_NODES_OF}{authority}"
        listed = values.get(self._name_nodes_key, "")
        self._name_nodes = [name.strip() for name in listed.split(",") if name.strip()]
        self._renewing = threading.Lock()
        self._timeout_s = settings.timeout_s
        self._outage_s = settings.outage_s
        self._refused_s = refused_s(settings)
        self.threads = DaemonThreads(MAX_THREADS)
        self.generation = 0
        self.native = self._connected()

    def renew(self, generation: int) -> None:
        """Leave this generation of the client behind, unless that was done already."""
        with self._renewing:
            if generation == self.generation:
                self._name_nodes = self._name_nodes[1:] + self._name_nodes[:1]
                self.native = self._connected()
                self.generation += 1

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what may be repeated, within the bounds of time and of an outage.

        OSError if the outage does not end, or for any other failure.
        """
        outage = Outage(self._outage_s, self._refused_s)
        while True:
            try:
                return self.once(function, *args, **kwargs)
            except OSError as error:
                delay_s = outage.delay_s(error) if is_passing(error) else None
                if delay_s is None and isinstance(error, RefusedError):
                    raise error.with_cure() from None
                if delay_s is None:
                    raise
            time.sleep(delay_s)

    def once(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call within the bound of time, once; OSError as translated, TimeoutError if it hung."""
        generation = self.generation
        future = self.threads.submit(function, *args, **kwargs)
        wait([future], self._timeout_s)
        if not future.done():
            future.cancel()
            self.renew(generation)
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {self._timeout_s:g} s")
        with translated():
            return future.result()

    def _connected(self) -> hdfs_native.Client:
        options = dict(self._options)
        if len(self._name_nodes) > 1:
            options[self._name_nodes_key] = ",".join(self._name_nodes)
        with translated():
            return hdfs_native.Client(f"hdfs://{self._authority}", options, self._folder)
