"""Keeps a job logged in to Kerberos for as long as it runs, however short its tickets live.

The tickets lie in a credential cache of the job's own, in a folder that only its user may enter;
it is gone when the job ends, or when the next one begins if the job was killed. The cache of the
user is never touched, and without a keytab in the settings nothing is done at all: tickets that the
user has are used as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import random
import shutil
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import FailedPrecondition
from ingestor.kerberos.kinit import Kinit, Login, LoginFault, log_in, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, MutableMapping

    from ingestor.settings import KerberosSettings

logger = logging.getLogger(__name__)

_KINIT_TIMEOUT_S = 30.0
_FIRST_DELAY_S = 1.0
_MAX_DELAY_S = 60.0
_CACHE = "KRB5CCNAME"
_PREFIX = "sluice-kerberos-"
_SURELY_LOCKED_S = 60.0  # after it was made


@asynccontextmanager
async def logged_in(
    settings: KerberosSettings | None, environ: MutableMapping[str, str]
) -> AsyncIterator[None]:
    """Be logged in while the block runs: its HDFS clients find a valid ticket at any time.

    Args:
        settings: whose keytab; None changes nothing.
        environ: ``os.environ``, where the clients' libraries look. KRB5CCNAME, and KRB5_CONFIG if
            the settings name a krb5.conf, are set in it before the block and put back after it.

    Raises:
        FailedPrecondition: there is no login; the message names the fault and its cure.
    """
    if settings is None:
        yield
        return
    kinit = await asyncio.to_thread(prepare, settings, environ)
    if isinstance(kinit, LoginFault):
        raise FailedPrecondition(f"Kerberos: {kinit.message}")
    if kinit.is_exposed:
        logger.warning("any user may read the keytab %s: chmod 400 it", kinit.keytab)
    await asyncio.to_thread(_delete_left_behind)
    folder = await asyncio.to_thread(tempfile.mkdtemp, prefix=_PREFIX)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks, where nobody deletes
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        cache = Path(folder) / "cache"
        login = await log_in(kinit, cache, environ, timeout_s=_KINIT_TIMEOUT_S)
        if isinstance(login, LoginFault):
            raise FailedPrecondition(f"Kerberos: {login.message}")
        logger.info("logged in as %s for %.0f s", login.principal, login.lifetime_s)
        with _set(environ, {**kinit.environ, _CACHE: f"FILE:{cache}"}):
            renewal = asyncio.create_task(_renew(kinit, cache, environ, login))
            try:
                yield
            finally:
                renewal.cancel()
                await asyncio.wait((renewal,))
    finally:
        os.close(lock)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _delete_left_behind() -> None:
    """Delete this user's folders whose job was killed: the system took its lock away."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # gone meanwhile, another user's, or in use
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                status = os.fstat(lock)
                is_old = status.st_mtime < time.time() - _SURELY_LOCKED_S
                if is_old and status.st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


async def _renew(
    kinit: Kinit, cache: Path, environ: MutableMapping[str, str], login: Login
) -> None:
    """Log in again at half of each ticket's lifetime; where it fails, again and again."""
    loop = asyncio.get_running_loop()
    while True:
        lifetime_s = login.lifetime_s
        end = loop.time() + lifetime_s
        await asyncio.sleep(max(lifetime_s / 2, _FIRST_DELAY_S))
        failures, has_expired = 0, False
        while isinstance(
            renewed := await log_in(kinit, cache, environ, timeout_s=_KINIT_TIMEOUT_S), LoginFault
        ):
            failures += 1
            logger.warning("no new ticket, attempt %d: %s", failures, renewed.message)
            if loop.time() > end and not has_expired:
                has_expired = True
                logger.error("the ticket of %s has expired: HDFS will refuse it", login.principal)
            bound = min(_FIRST_DELAY_S * 2 ** min(failures, 10), lifetime_s / 8, _MAX_DELAY_S)
            await asyncio.sleep(max(_FIRST_DELAY_S, bound) * random.uniform(0.5, 1))  # noqa: S311 — no secret
        login = renewed


@contextlib.contextmanager
def _set(environ: MutableMapping[str, str], values: dict[str, str]) -> Iterator[None]:
    """Have these variables while the block runs, and afterwards what was there."""
    before = {name: environ.get(name) for name in values}
    environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value
