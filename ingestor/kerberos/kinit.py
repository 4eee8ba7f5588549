"""One login at a KDC with a keytab, by the program kinit; what can go wrong, each with its cure.

It changes nothing but the cache that it is told to write. Faults are values: a job stops on one,
or tries again; ``sluice doctor`` shows it. They name principals and files, never a key.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingestor.kerberos.files import MalformedError, keytab_principals, read_cache

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ingestor.settings import KerberosSettings

SYSTEM_CONFIGURATION = Path("/etc/krb5.conf")
_SECTION = "ingest.hdfs.kerberos"
_MAX_FILE_BYTES = 2**20
_MAX_NAMED = 5

# What MIT's kinit says in the locale C, what it means and what to do; the first match counts.
_KNOWN = (
    (
        ("not found in Kerberos database",),
        "the KDC knows no principal {principal}",
        f"correct {_SECTION}.principal, or have the realm's administrator create it",
    ),
    (
        ("Preauthentication failed", "Password incorrect", "Decrypt integrity check failed"),
        "the KDC does not accept the key in {keytab}: the keytab is out of date",
        "have the keytab of {principal} exported again; a new password or a later export ends it",
    ),
    (
        ("No key table entry found", "no suitable keys", "encryption type"),
        "{keytab} has no key of a type that the KDC uses for {principal}",
        "have the keytab exported again, with the encryption types of the realm",
    ),
    (
        ("Clock skew too great",),
        "the clocks of this machine and of the KDC differ by more than the realm allows",
        "set this machine's clock right and keep it so with chrony or ntpd",
    ),
    (
        ("Cannot contact any KDC", "Cannot resolve network address for KDC"),
        "no KDC of the realm of {principal} answers",
        "start it, open its port (88) to this machine, or correct the kdc lines in {krb5_conf}",
    ),
    (
        ("Cannot find KDC for",),
        "{krb5_conf} names no KDC of the realm of {principal}",
        f"add the realm to [realms] there, or correct the realm in {_SECTION}.principal",
    ),
    (
        ("does not specify default realm",),
        "{principal} has no realm, and {krb5_conf} names no default_realm",
        f"write {_SECTION}.principal as name@REALM",
    ),
    (
        ("Improper format of Kerberos configuration", "configuration file"),
        "{krb5_conf} is malformed or cannot be read",
        f"correct it, or set {_SECTION}.krb5_conf to the file of the realm",
    ),
    (
        ("revoked", "has expired"),
        "the KDC has locked {principal}, or it has expired",
        "have the realm's administrator enable it again",
    ),
)


@dataclass(frozen=True, slots=True)
class LoginFault:
    """Why there is no ticket, and what to do."""

    detail: str
    cure: str

    @property
    def message(self) -> str:
        """Both, as one sentence."""
        return f"{self.detail}; {self.cure}"


@dataclass(frozen=True, slots=True)
class Login:
    """What a login left: whose ticket it is, and for how many seconds from then on."""

    principal: str
    lifetime_s: float


@dataclass(frozen=True, slots=True)
class Kinit:
    """A login that is ready to be made.

    ``environ`` is what a client of the ticket needs besides it; ``is_exposed`` tells that any user
    of this machine may read the keytab.
    """

    program: str
    principal: str
    keytab: Path
    krb5_conf: str
    environ: Mapping[str, str]
    is_exposed: bool


def prepare(settings: KerberosSettings, environ: Mapping[str, str]) -> Kinit | LoginFault:
    """Find what a login needs: keytab, principal, krb5.conf, kinit. Reads files; calls nobody."""
    exposed = _check_keytab(settings)
    if isinstance(exposed, LoginFault):
        return exposed
    given = str(settings.krb5_conf) if settings.krb5_conf else environ.get("KRB5_CONFIG")
    krb5_conf = given or str(SYSTEM_CONFIGURATION)
    if not any(os.access(path, os.R_OK) for path in krb5_conf.split(":")):
        cure = f"set {_SECTION}.krb5_conf or KRB5_CONFIG to the file that describes the realm"
        return LoginFault(f"there is no krb5.conf to read at {krb5_conf}", cure)
    program = shutil.which(settings.kinit, path=environ.get("PATH"))
    if program is None:
        cure = f"install krb5-user (Debian) or krb5-workstation (RHEL), or set {_SECTION}.kinit"
        return LoginFault(f"the program {settings.kinit} is not there", cure)
    added = {"KRB5_CONFIG": krb5_conf} if settings.krb5_conf else {}
    return Kinit(program, settings.principal, settings.keytab, krb5_conf, added, exposed)


def _check_keytab(settings: KerberosSettings) -> bool | LoginFault:
    """Whether any user may read the keytab, if it has a key of the principal."""
    keytab, principal = settings.keytab, settings.principal
    try:
        with keytab.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            held = keytab_principals(file.read(_MAX_FILE_BYTES))
    except FileNotFoundError:
        cure = f"set {_SECTION}.keytab to where it is, or have one exported for {principal}"
        return LoginFault(f"the keytab {keytab} does not exist", cure)
    except PermissionError:
        cure = "give it to the user that runs this: chown USER, chmod 400"
        return LoginFault(f"the keytab {keytab} may not be read by this user", cure)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        cure = f"set {_SECTION}.keytab to a file that can be read"
        return LoginFault(f"the keytab {keytab} cannot be read: {reason}", cure)
    except MalformedError as error:
        cure = f"have the keytab exported again, or correct {_SECTION}.keytab"
        return LoginFault(f"{keytab} is no keytab: {error}", cure)
    if not any(_is_same(principal, other) for other in held):
        named = ", ".join(held[:_MAX_NAMED]) or "nothing"
        more = f" and {len(held) - _MAX_NAMED} more" if len(held) > _MAX_NAMED else ""
        cure = f"set {_SECTION}.principal to a principal of this keytab, or name another keytab"
        detail = f"the keytab {keytab} has no key of {principal}; it holds {named}{more}"
        return LoginFault(detail, cure)
    return bool(mode & stat.S_IROTH)


def _is_same(principal: str, held: str) -> bool:
    """Whether they name one; without a realm, krb5.conf says which is meant."""
    return principal == held or (
        "@" not in principal.replace("\\@", "") and held.startswith(f"{principal}@")
    )


async def log_in(
    kinit: Kinit, cache: Path, environ: Mapping[str, str], *, timeout_s: float
) -> Login | LoginFault:
    """Have kinit write a credential cache, whole or not at all.

    It is written beside and renamed, so that no reader ever sees half a cache. Not safe to be run
    twice at once for one cache.

    Args:
        kinit: as ``prepare`` made it.
        cache: path of the cache in a folder that is the caller's own.
        environ: of this process; what kinit is started with.
        timeout_s: kinit is ended after so long.
    """
    fresh = cache.with_name(f"{cache.name}.new")
    try:
        process = await asyncio.create_subprocess_exec(
            *(kinit.program, "-k", "-t", f"FILE:{kinit.keytab}", "-c", f"FILE:{fresh}"),
            kinit.principal,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**environ, **kinit.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        detail = f"{kinit.program} cannot be started: {error.strerror}"
        return LoginFault(detail, f"set {_SECTION}.kinit to MIT's kinit")
    try:
        async with asyncio.timeout(timeout_s):
            _, said = await process.communicate()
    except TimeoutError:
        detail = f"no KDC of the realm of {kinit.principal} answered within {timeout_s:g} s"
        cure = f"open its port (88) to this machine, or correct the kdc lines in {kinit.krb5_conf}"
        return LoginFault(detail, cure)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        return _explain(kinit, said.decode("utf-8", "replace"))
    return await asyncio.to_thread(_put_in_place, fresh, cache)


def _put_in_place(fresh: Path, cache: Path) -> Login | LoginFault:
    try:
        held = read_cache(fresh.read_bytes())
        ticket = held.granting_ticket
        fresh.replace(cache)
    except (OSError, MalformedError) as error:
        return LoginFault(f"kinit left no credential cache: {error}", "free space in TMPDIR")
    if ticket is None:
        return LoginFault("kinit left a cache without a ticket", "run kinit by hand, and klist")
    return Login(held.principal, ticket.end - (time.time() + held.time_offset_s))


def _explain(kinit: Kinit, said: str) -> LoginFault:
    names = {"principal": kinit.principal, "keytab": kinit.keytab, "krb5_conf": kinit.krb5_conf}
    for phrases, detail, cure in _KNOWN:
        if any(phrase in said for phrase in phrases):
            return LoginFault(detail.format_map(names), cure.format_map(names))
    last = (said.strip().splitlines() or ["it said nothing"])[-1].removeprefix("kinit: ")
    by_hand = f"kinit -k -t {kinit.keytab} {kinit.principal}"
    return LoginFault(f"kinit failed: {last}", f"run `{by_hand}` by hand to see more")
