"""A job that outlives its tickets: one minute each, three minutes of work, new connections."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from typing import TYPE_CHECKING

import pytest
import yaml

from common.rpc import GrpcServer, ServerSettings
from tests.installation import SLUICE
from tests.integration.hdfs.lake import Lake
from tests.integration.ingestor.conftest import IndexServicer, Recorder, bindings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.hdfs.minidfs import MiniDfs

JOB_S = 180
FILES = 180
LIMIT_S = 300


class PacedIndexer(IndexServicer):
    """Takes its time over each document, so that a job takes three minutes."""

    async def IndexDocuments(self, request_iterator, context):  # noqa: N802 — the stub's name
        async for response in super().IndexDocuments(request_iterator, context):
            if response.HasField("acknowledgements"):
                await asyncio.sleep(JOB_S / FILES)
            yield response


def settings(dfs: MiniDfs, target: str, folder: Path) -> Path:
    """The configuration of the job, as an operator writes it, with tickets of a minute."""
    krb5_conf = folder / "krb5.conf"
    lifetime = re.compile("ticket_lifetime = .*")
    krb5_conf.write_text(lifetime.sub("ticket_lifetime = 60s", dfs.krb5_conf.read_text()))
    hdfs = {
        "conf_dir": str(dfs.conf_dir),
        "kerberos": {
            "principal": dfs.principal,
            "keytab": str(dfs.keytab),
            "krb5_conf": str(krb5_conf),
        },
    }
    # A window of few documents: the last files are read when the first tickets are long gone.
    stream = {"batch_documents": 1, "max_unacknowledged_documents": 4}
    ingest = {"state_uri": str(folder / "state"), "readers": 1, "hdfs": hdfs, "stream": stream}
    file = folder / "sluice.yaml"
    file.write_text(yaml.safe_dump({"ingest": ingest, "client": {"target": target}}))
    return file


@pytest.mark.timeout(LIMIT_S + 60)
async def test_a_job_of_three_minutes_with_tickets_of_one(kerberos_dfs, tmp_path, monkeypatch):
    dfs = kerberos_dfs
    with monkeypatch.context() as context:
        for name, value in dfs.login(tmp_path / "writer.cache").items():
            context.setenv(name, value)
        lake = Lake(dfs)
        names = [f"note-{number:03d}.md" for number in range(FILES)]
        await asyncio.to_thread(
            lake.write_all, {name: f"# {name}\n\nA block has three replicas.\n" for name in names}
        )
    recorder = Recorder()
    paced = bindings(recorder, PacedIndexer(recorder))
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SLUICE_")}
    environ["KRB5CCNAME"] = f"FILE:{tmp_path / 'nobody'}"  # the job has no ticket but its own
    async with GrpcServer.open(ServerSettings(listen="127.0.0.1:0"), paced) as server:
        file = settings(dfs, server.address, tmp_path)
        started, mark = time.monotonic(), 0
        job = await asyncio.create_subprocess_exec(
            *(*SLUICE, "ingest", lake.uri, "--collection", "docs", "--json"),
            *("--config", str(file)),
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            # An open connection outlives its ticket. A name node that starts anew asks for one.
            for moment in (JOB_S * 0.4, JOB_S * 0.8):
                await asyncio.sleep(started + moment - time.monotonic())
                await asyncio.to_thread(dfs.command, "restart-namenode", "0")
                mark = lake.mark()
            async with asyncio.timeout(LIMIT_S):
                out, log = await job.communicate()
        finally:
            if job.returncode is None:
                job.kill()
                await job.wait()

    assert job.returncode == 0, log.decode()[-4_000:]
    summary = json.loads(out)
    assert (summary["indexed"], summary["dead_letters"]) == (FILES, 0)
    assert recorder.names() == set(names)
    assert time.monotonic() - started > JOB_S
    assert len(lake.opened(mark)) > FILES / 20
