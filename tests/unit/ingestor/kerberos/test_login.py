"""Being logged in: what is set, renewed, retried and put back, and what each failure says.

A script takes kinit's place: it leaves real caches, and says what MIT's kinit says. The real one
is met in tests/integration/hdfs.
"""

import asyncio
import json
import logging
import os
import stat
import sys
import tempfile
import time
from pathlib import Path

import pytest

from common.errors import FailedPrecondition
from ingestor.kerberos import login as kerberos
from ingestor.kerberos.files import read_cache
from ingestor.kerberos.login import logged_in
from ingestor.settings import KerberosSettings
from tests.unit.ingestor.kerberos.kerberos_bytes import keytab

# Does what the file `orders` says (seconds of lifetime, or what to complain of), one order a call,
# the last one over and over, and notes how it was called.
SCRIPT = """\
#!{python}
import json, os, pathlib, sys, time
sys.path.insert(0, {root!r})
from tests.unit.ingestor.kerberos.kerberos_bytes import cache, credential
folder = pathlib.Path({folder!r})
orders = json.loads((folder / "orders").read_text())
calls = folder / "calls"
number = len(calls.read_text().splitlines()) if calls.exists() else 0
order = orders[min(number, len(orders) - 1)]
with calls.open("a") as log:
    names = ("KRB5_CONFIG", "LC_ALL")
    log.write(json.dumps([sys.argv[1:], [os.environ.get(name) for name in names]]) + "\\n")
if order == "hang":
    time.sleep(600)
if isinstance(order, str):
    sys.exit(f"kinit: {{order}} while getting initial credentials")
now = int(time.time())
ticket = credential(["krbtgt", "R.ORG"], "R.ORG", (now, now, now + order))
pathlib.Path(sys.argv[5].removeprefix("FILE:")).write_bytes(cache(ticket))
"""


class Kdc:
    """The script and its notes."""

    def __init__(self, folder):
        self.folder = folder
        self.script = folder / "kinit"
        root = str(Path(__file__).parents[4])
        script = SCRIPT.format(python=sys.executable, root=root, folder=str(folder))
        self.script.write_text(script)
        self.script.chmod(0o755)
        (folder / "keytab").write_bytes(keytab((["alice"], "R.ORG"), (["bob"], "R.ORG")))
        (folder / "keytab").chmod(0o400)
        (folder / "krb5.conf").write_text("")

    def order(self, *orders):
        (self.folder / "orders").write_text(json.dumps(orders))

    @property
    def calls(self):
        calls = self.folder / "calls"
        return (
            [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
        )

    def settings(self, **other):
        given = {"principal": "alice@R.ORG", "keytab": self.folder / "keytab"}
        given |= {"kinit": self.script, "krb5_conf": self.folder / "krb5.conf"}
        return KerberosSettings(**(given | other))


@pytest.fixture
def kdc(tmp_path):
    return Kdc(tmp_path)


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 — another process has no event to wait for
            await asyncio.sleep(0.01)


def cache_of(environ):
    return Path(environ["KRB5CCNAME"].removeprefix("FILE:"))


async def failure(settings, environ=None):
    with pytest.raises(FailedPrecondition) as raised:
        async with logged_in(settings, {} if environ is None else environ):
            pytest.fail("it began")
    return raised.value.message


async def test_without_a_keytab_nothing_is_changed():
    environ = {"KRB5CCNAME": "KCM:"}
    async with logged_in(None, environ):
        assert environ == {"KRB5CCNAME": "KCM:"}


async def test_a_login_is_found_by_clients_and_is_gone_afterwards(kdc):
    kdc.order(600)
    environ = {"KRB5CCNAME": "KCM:", "OTHER": "x"}
    async with logged_in(kdc.settings(), environ):
        cache = cache_of(environ)
        assert read_cache(cache.read_bytes()).principal == "alice@R.ORG"
        assert stat.S_IMODE(cache.parent.stat().st_mode) == 0o700
        assert list(cache.parent.iterdir()) == [cache]
        assert environ["KRB5_CONFIG"] == str(kdc.folder / "krb5.conf")
    assert environ == {"KRB5CCNAME": "KCM:", "OTHER": "x"}
    assert not cache.parent.exists()
    ((arguments, variables),) = kdc.calls
    keytab_name = f"FILE:{kdc.folder}/keytab"
    assert arguments == ["-k", "-t", keytab_name, "-c", f"FILE:{cache}.new", "alice@R.ORG"]
    assert variables == [str(kdc.folder / "krb5.conf"), "C"]


async def test_a_ticket_is_renewed_at_half_of_its_lifetime(kdc):
    kdc.order(3)
    environ: dict[str, str] = {}
    async with logged_in(kdc.settings(), environ):
        first = cache_of(environ).read_bytes()
        began = asyncio.get_running_loop().time()
        await until(lambda: cache_of(environ).read_bytes() != first)
        passed = asyncio.get_running_loop().time() - began
        assert len(kdc.calls) == 2
    assert 0.9 < passed < 3


async def test_a_renewal_that_fails_is_repeated_until_it_works(kdc, monkeypatch, caplog):
    monkeypatch.setattr(kerberos, "_FIRST_DELAY_S", 0.05)
    kdc.order(1, *["Cannot contact any KDC for realm 'R.ORG'"] * 20, 600)
    environ: dict[str, str] = {}
    async with logged_in(kdc.settings(), environ):
        await until(lambda: len(kdc.calls) == 22)
        await until(lambda: "has expired" in caplog.text)
        cache = cache_of(environ)
        await until(lambda: read_cache(cache.read_bytes()).tickets[0].end > time.time() + 500)
    assert "no new ticket, attempt 1: no KDC of the realm of alice@R.ORG answers" in caplog.text
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == [
        "the ticket of alice@R.ORG has expired: HDFS will refuse it"
    ]


async def test_a_block_that_fails_is_cleaned_up_after(kdc):
    kdc.order(600)
    environ: dict[str, str] = {}
    folders = []

    async def fail():
        async with logged_in(kdc.settings(), environ):
            folders.append(cache_of(environ).parent)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert environ == {}
    assert not folders[0].exists()


async def test_a_login_that_is_cancelled_leaves_nothing(kdc, monkeypatch, tmp_path):
    kdc.order("hang")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    async def begin():
        async with logged_in(kdc.settings(), {}):
            pytest.fail("it began")

    task = asyncio.create_task(begin())
    await until(lambda: kdc.calls)
    assert list(scratch.iterdir())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(scratch.iterdir()) == []


async def test_tickets_of_killed_jobs_are_deleted_and_no_others(kdc, monkeypatch, tmp_path):
    kdc.order(600)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def aged(name):
        folder = scratch / name
        folder.mkdir(exist_ok=True)
        (folder / "cache").touch()
        os.utime(folder, (0, 0))
        return folder

    killed = aged("sluice-kerberos-1")
    fresh = scratch / "sluice-kerberos-2"  # of a job that has not come to lock it
    fresh.mkdir()
    link = scratch / "sluice-kerberos-3"
    link.symlink_to(aged("other"))
    environ: dict[str, str] = {}
    async with logged_in(kdc.settings(), environ):
        running = aged(cache_of(environ).parent.name)
        assert not killed.exists()
        async with logged_in(kdc.settings(), {}):
            assert (running / "cache").exists()
    assert sorted(scratch.iterdir()) == [scratch / "other", fresh, link]
    assert (link / "cache").exists()


async def test_a_kinit_that_hangs_is_ended(kdc, monkeypatch):
    monkeypatch.setattr(kerberos, "_KINIT_TIMEOUT_S", 1.0)
    kdc.order("hang")
    message = await failure(kdc.settings())
    assert message.startswith("Kerberos: no KDC of the realm of alice@R.ORG answered within 1 s; ")


@pytest.mark.parametrize(
    ("said", "detail", "cure"),
    [
        ("Client 'alice@R.ORG' not found in Kerberos database", "knows no principal", "principal"),
        ("Preauthentication failed", "the keytab is out of date", "exported again"),
        ("Password incorrect", "the keytab is out of date", "exported again"),
        ("No key table entry found for alice@R.ORG", "has no key of a type", "encryption types"),
        ("KDC has no support for encryption type", "has no key of a type", "encryption types"),
        ("Clock skew too great", "the clocks of this machine and of the KDC differ", "chrony"),
        ("Clock skew too great in KDC reply", "the clocks of this machine", "chrony"),
        ("Cannot contact any KDC for realm 'R.ORG'", "no KDC of the realm", "port (88)"),
        ('Cannot find KDC for realm "R.ORG"', "krb5.conf names no KDC", "[realms]"),
        ("Improper format of Kerberos configuration file", "is malformed", "krb5_conf"),
        ("Configuration file does not specify default realm", "has no realm", "name@REALM"),
        ("Client's credentials have been revoked", "has locked alice@R.ORG", "administrator"),
        ("Something else", "kinit failed: Something else", "by hand"),
    ],
)
async def test_what_kinit_says_is_told_with_its_cure(kdc, said, detail, cure):
    kdc.order(said)
    message = await failure(kdc.settings())
    told, _, to_do = message.partition("; ")
    assert detail in told
    assert cure in to_do


async def test_each_thing_that_a_login_needs_is_looked_for(kdc, tmp_path):
    missing = tmp_path / "missing"
    assert f"the keytab {missing} does not exist; " in await failure(kdc.settings(keytab=missing))
    assert "cannot be read: Is a directory; " in await failure(kdc.settings(keytab=tmp_path))
    message = await failure(kdc.settings(principal="carol@R.ORG"))
    assert "has no key of carol@R.ORG; it holds alice@R.ORG, bob@R.ORG; set " in message
    message = await failure(kdc.settings(krb5_conf=missing))
    assert f"there is no krb5.conf to read at {missing}; " in message
    message = await failure(kdc.settings(krb5_conf=None), {"KRB5_CONFIG": str(missing)})
    assert f"there is no krb5.conf to read at {missing}; " in message
    message = await failure(kdc.settings(kinit=missing))
    assert f"the program {missing} is not there; install krb5-user" in message
    assert kdc.calls == []


async def test_many_principals_are_not_all_listed(kdc):
    (kdc.folder / "keytab").chmod(0o600)
    many = keytab(*(([f"p{number}"], "R") for number in range(9)))
    (kdc.folder / "keytab").write_bytes(many)
    assert "it holds p0@R, p1@R, p2@R, p3@R, p4@R and 4 more; " in await failure(kdc.settings())


async def test_a_keytab_that_may_not_be_read_is_named(kdc, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # tests may run as root, who may read all
    assert "may not be read by this user; give it to the user" in await failure(kdc.settings())


async def test_a_principal_without_a_realm_and_a_list_of_files_will_do(kdc, tmp_path):
    kdc.order(600)
    files = f"{tmp_path}/missing:{kdc.folder}/krb5.conf"
    environ = {"KRB5_CONFIG": files}
    async with logged_in(kdc.settings(principal="alice", krb5_conf=None), environ):
        assert environ["KRB5_CONFIG"] == files
    assert "no key of ali;" in await failure(kdc.settings(principal="ali"))


async def test_an_exposed_keytab_is_warned_of(kdc, caplog):
    kdc.order(600)
    async with logged_in(kdc.settings(), {}):
        assert "any user may read" not in caplog.text
    (kdc.folder / "keytab").chmod(0o444)
    async with logged_in(kdc.settings(), {}):
        assert f"any user may read the keytab {kdc.folder}/keytab" in caplog.text


async def test_a_program_that_is_no_kinit_is_told_of(kdc):
    assert "kinit left no credential cache" in await failure(kdc.settings(kinit=Path("true")))
    kdc.script.write_text("#!/no/such/interpreter\n")
    assert "cannot be started: No such file or directory; " in await failure(kdc.settings())
