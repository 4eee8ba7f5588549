"""What of a storage's failures passes by itself, and how long it is waited for.

A name node that fails over, or a network that is down, is no fault of the file that was read just
then: it is waited for within a bound, and after that the job ends. It never becomes a fault of each
file.
"""

from __future__ import annotations

import errno
import random
import re
import time
from typing import TYPE_CHECKING

from ingestor.storage.hdfs_errors import RefusedError

if TYPE_CHECKING:
    from ingestor.settings import HdfsSettings

_FIRST_S = 0.2
_MOST_S = 10.0
# A ticket may be about to be replaced, which takes a moment; longer, where a login that failed is
# repeated (``kerberos.login``).
_REFUSED_S = 5.0
_REFUSED_WITH_KEYTAB_S = 60.0
_NETWORK = {
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.EPIPE,
    errno.ETIMEDOUT,
}
# pyarrow's S3 gives no number; the names are those of the AWS SDK's CoreErrors.
_S3 = re.compile(
    r"AWS Error (INTERNAL_FAILURE|NETWORK_CONNECTION|REQUEST_TIMEOUT|SERVICE_UNAVAILABLE|SLOW_DOWN"
    r"|THROTTLING)"
)


def is_passing(error: BaseException) -> bool:
    """Whether the storage as a whole is out of reach, and may be back in a while."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if not isinstance(error, OSError):
        return False
    return error.errno in _NETWORK or (error.errno is None and bool(_S3.search(str(error))))


def refused_s(settings: HdfsSettings) -> float:
    """For how long a cluster that does not accept this job is asked again."""
    return _REFUSED_S if settings.kerberos is None else _REFUSED_WITH_KEYTAB_S


class Outage:
    """One outage: begins with the first failure, and is over its bound some seconds later.

    A failure of the kind ``RefusedError`` is waited for no longer than ``refused_s``.
    """

    def __init__(self, bound_s: float, refused_s: float = _REFUSED_S) -> None:
        self._bound_s = bound_s
        self._refused_s = min(bound_s, refused_s)
        self._began = 0.0
        self._failures = 0

    def delay_s(self, failure: BaseException | None = None) -> float | None:
        """Seconds to wait after another failure; None if it was waited for long enough.

        Exponential with full jitter, as ``backoff``.
        """
        now = time.monotonic()
        if not self._failures:
            self._began = now
        bound_s = self._refused_s if isinstance(failure, RefusedError) else self._bound_s
        left_s = self._began + bound_s - now
        if left_s <= 0:
            return None
        self._failures += 1
        bound = min(_MOST_S, _FIRST_S * 2 ** min(self._failures, 16))
        return min(left_s, random.uniform(bound / 4, bound))  # noqa: S311 — no secret
