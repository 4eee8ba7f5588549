"""What ``sluice doctor`` finds out about Kerberos: whether this user has a ticket, or can get one.

With a keytab it logs in into a cache that is thrown away; without one it only reads the user's.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from common.doctor import Check
from ingestor.kerberos.files import MalformedError, read_cache
from ingestor.kerberos.kinit import LoginFault, log_in, prepare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ingestor.settings import KerberosSettings

NAME = "Kerberos"
CACHE = "KRB5CCNAME"
_TIMEOUT_S = 10.0
_CURE = "run kinit, or set ingest.hdfs.kerberos.principal and .keytab, so that a job logs in itself"


def log_in_with_keytab(
    settings: KerberosSettings, environ: Mapping[str, str], folder: Path
) -> tuple[Check, dict[str, str]]:
    """Log in, into a cache in the folder; also the variables by which clients find the ticket."""
    kinit = prepare(settings, environ)
    if isinstance(kinit, LoginFault):
        return Check(NAME, ok=False, detail=kinit.detail, cure=kinit.cure), {}
    cache = folder / "cache"
    login = asyncio.run(log_in(kinit, cache, environ, timeout_s=_TIMEOUT_S))
    if isinstance(login, LoginFault):
        return Check(NAME, ok=False, detail=login.detail, cure=login.cure), {}
    detail = f"{login.principal} logs in with {kinit.keytab} for {login.lifetime_s:.0f} s"
    if kinit.is_exposed:
        detail += "; any user may read this keytab: chmod 400 it"
    return Check(NAME, ok=True, detail=detail), {**kinit.environ, CACHE: f"FILE:{cache}"}


def own_ticket(environ: Mapping[str, str]) -> Check:
    """Whether the user has a ticket that is valid now."""
    name = environ.get(CACHE, "")
    kind, separator, path = name.partition(":")
    if name and (not separator or kind == "FILE"):
        return _in_file(Path(path or name))
    return _in_default_cache(environ)


def _in_file(cache: Path) -> Check:
    try:
        held = read_cache(cache.read_bytes())
    except FileNotFoundError:
        detail = f"there is no ticket: the cache {cache} does not exist"
        return Check(NAME, ok=False, detail=detail, cure=_CURE)
    except OSError as error:
        detail = f"the cache {cache} cannot be read: {error.strerror}"
        return Check(NAME, ok=False, detail=detail, cure=f"set {CACHE} to a cache of your own")
    except MalformedError as error:
        return Check(NAME, ok=False, detail=f"{cache}: {error}", cure=_CURE)
    ticket = held.granting_ticket
    if ticket is None:
        detail = f"the cache {cache} of {held.principal} holds no ticket"
        return Check(NAME, ok=False, detail=detail, cure=_CURE)
    left_s = ticket.end - (time.time() + held.time_offset_s)
    end = datetime.fromtimestamp(ticket.end - held.time_offset_s, UTC).isoformat()
    if left_s <= 0:
        detail = f"the ticket of {held.principal} in {cache} expired at {end}"
        return Check(NAME, ok=False, detail=detail, cure=_CURE)
    detail = f"{held.principal} has a ticket until {end}; nobody renews it for a longer job"
    return Check(NAME, ok=True, detail=detail)


def _in_default_cache(environ: Mapping[str, str]) -> Check:
    """Ask klist, which knows where a cache lies that no file name tells (KCM, KEYRING, DIR)."""
    klist = shutil.which("klist", path=environ.get("PATH"))
    if klist is None:
        detail = "klist is not there to ask for a ticket"
        cure = "install krb5-user (Debian) or krb5-workstation (RHEL)"
        return Check(NAME, ok=False, detail=detail, cure=cure)
    asked = {**environ, "LC_ALL": "C"}
    try:
        listed, valid = (
            subprocess.run(  # noqa: S603 — a program of the system, with arguments of our own
                [klist, *options],
                env=asked,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
            )
            for options in ([], ["-s"])
        )
    except (OSError, subprocess.TimeoutExpired):
        return Check(NAME, ok=False, detail=f"{klist} gives no answer", cure="run klist by hand")
    if listed.returncode != 0:
        said = (listed.stderr.strip().splitlines() or ["klist found none"])[-1]
        detail = f"there is no ticket: {said.removeprefix('klist: ')}"
        return Check(NAME, ok=False, detail=detail, cure=_CURE)
    fields = dict(line.split(": ", 1) for line in listed.stdout.splitlines() if ": " in line)
    whose = f"of {fields.get('Default principal', '?')} in {fields.get('Ticket cache', '?')}"
    if valid.returncode != 0:
        return Check(NAME, ok=False, detail=f"the ticket {whose} has expired", cure=_CURE)
    return Check(NAME, ok=True, detail=f"a ticket {whose}; nobody renews it for a longer job")
