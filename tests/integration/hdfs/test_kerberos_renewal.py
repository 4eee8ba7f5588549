"""A job stays logged in for longer than any of its tickets lives."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import hdfs_native

from ingestor.kerberos.files import read_cache
from ingestor.kerberos.login import logged_in
from ingestor.settings import KerberosSettings

LIFETIME_S = 6
SKEW_S = 5  # what the cluster's krb5.conf forgives


def end_of_ticket() -> int:
    cache = Path(os.environ["KRB5CCNAME"].removeprefix("FILE:"))
    ticket = read_cache(cache.read_bytes()).granting_ticket
    assert ticket is not None
    return ticket.end


async def test_hdfs_answers_long_after_the_first_ticket_expired(
    kerberos_dfs, tmp_path, monkeypatch
):
    conf = kerberos_dfs.krb5_conf.read_text().splitlines()
    short = f"ticket_lifetime = {LIFETIME_S}s"
    changed = [short if "ticket_lifetime" in line else line for line in conf]
    (tmp_path / "krb5.conf").write_text("\n".join(changed))
    monkeypatch.setenv("HADOOP_CONF_DIR", str(kerberos_dfs.conf_dir))
    monkeypatch.setenv("KRB5_CONFIG", "/nowhere")  # the settings' own holds
    monkeypatch.delenv("KRB5CCNAME", raising=False)
    settings = KerberosSettings(
        principal=kerberos_dfs.principal,
        keytab=kerberos_dfs.keytab,
        krb5_conf=tmp_path / "krb5.conf",
    )

    async def lists() -> bool:
        """Of a new connection, which needs a ticket of its own."""
        client = hdfs_native.Client(kerberos_dfs.uri)
        await asyncio.to_thread(lambda: list(client.list_status("/")))
        return True

    async with logged_in(settings, os.environ):
        ends = {end_of_ticket()}
        assert min(ends) <= time.time() + LIFETIME_S
        assert await lists()
        async with asyncio.timeout(5 * LIFETIME_S):
            while time.time() <= min(ends) + SKEW_S or len(ends) < 3:
                await asyncio.sleep(0.1)  # tickets expire by the clock
                ends.add(end_of_ticket())
        assert await lists()
    assert os.environ["KRB5_CONFIG"] == "/nowhere"
    assert "KRB5CCNAME" not in os.environ
