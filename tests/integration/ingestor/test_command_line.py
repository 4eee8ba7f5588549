"""The commands as processes: killed at any moment and run again, exit codes, dead letters."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from ingestor.commands import ingest
from ingestor.state.manifest import RUNNING

if TYPE_CHECKING:
    from pathlib import Path

FILES = 120


def change(root: Path, generator: random.Random) -> None:
    """Write, rewrite and remove some files."""
    for number in generator.sample(range(FILES), 40):
        path = root / f"{number % 7}" / f"{number}.txt"
        if path.exists() and generator.random() < 0.3:
            path.unlink()
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{number} {generator.random()}")


def clean_run(root: Path) -> dict[str, str]:
    return {path.as_uri(): path.read_text() for path in root.rglob("*.txt")}


async def test_killed_at_random_moments(ingester, recorder, start):
    generator = random.Random(7)
    recorder.limits.max_batch_documents = 2
    killed = 0
    for number in range(FILES):
        path = ingester.root / f"{number % 7}" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number}")
    while killed < 6:
        process = await start("ingest", "--json")
        seen = len(recorder.sent)
        wanted = generator.randrange(1, 40)
        async with asyncio.timeout(30):
            # Another process is watched, so there is no event to wait for.
            while process.returncode is None and len(recorder.sent) - seen < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        await process.communicate()
        change(ingester.root, generator)
    process = await start("ingest", "--json")
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    held = {d.source_uri: d.content for d in recorder.documents.values()}
    assert held == clean_run(ingester.root)
    summary = json.loads(output)
    assert summary["documents"] == len(held)
    process = await start("ingest", "--json")
    output, _ = await process.communicate()
    assert json.loads(output)["files_opened"] == 0


async def test_exit_codes_and_the_summary(ingester, start):
    (ingester.root / "a.txt").write_text("text")
    (ingester.root / "b.pdf").write_bytes(b"broken")
    (ingester.root / "old.txt").write_text("old")
    os.utime(ingester.root / "old.txt", (1_000_000_000, 1_000_000_000))
    process = await start("ingest", "--json", "--modified-since", "7d")
    output, errors = await process.communicate()
    assert process.returncode == 3, errors.decode()
    summary = json.loads(output)
    assert (summary["indexed"], summary["dead_letters"], summary["index_version"]) == (1, 1, 1)
    assert (summary["skipped"], summary["stopped"]) == (1, False)
    assert summary["roots"][0]["root_uri"] == f"{ingester.root.as_uri()}/"


async def test_dead_letters_on_the_command_line(ingester, start):
    (ingester.root / "a.pdf").write_bytes(b"broken")
    (ingester.root / "b.txt").write_text("")
    await (await start("ingest", "--json")).communicate()

    async def dead_letters(*words: str) -> tuple[int | None, str]:
        process = await start("dead-letters", *words)
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    code, listed = await dead_letters("list", "--collection", "docs")
    uri = f"{ingester.root.as_uri()}/a.pdf"
    assert code == 0
    assert f"malformed\t1\t{uri}\n" in listed
    code, shown = await dead_letters("show", uri, "--json")
    (letter,) = json.loads(shown)["dead_letters"]
    assert (letter["cause"], letter["stage"], letter["attempts"]) == ("malformed", "extract", 1)
    (ingester.root / "b.txt").write_text("text")
    code, retried = await dead_letters("retry", "--json")
    assert code == 3
    assert (json.loads(retried)["tried"], json.loads(retried)["dead_letters"]) == (2, 1)
    assert (await dead_letters("drop", uri, "--json"))[1] == '{"dropped": 1}\n'
    assert await dead_letters("list", "--json") == (0, '{"dead_letters": []}\n')


async def test_the_first_signal_ends_in_order_and_the_second_at_once(ingester, recorder, start):
    (ingester.root / "first.txt").write_text("a job that ended has left a manifest")
    await ingester()
    for number in range(300):
        (ingester.root / f"{number}.txt").write_text(f"text {number}")
    recorder.limits.max_batch_documents = 1
    process = await start("ingest", "--json")
    await until_sent(recorder, 10)
    process.send_signal(signal.SIGTERM)
    output, errors = await process.communicate()
    assert process.returncode == 1
    assert "goes on where it stopped" in errors.decode()
    assert json.loads(output)["stopped"]
    assert not list(ingester.state.rglob(RUNNING))
    recorder.silent = True
    process = await start("ingest", "--json")
    batches = len(recorder.batches)
    async with asyncio.timeout(30):
        while len(recorder.batches) == batches:  # noqa: ASYNC110 — as above
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert "goes on where it stopped" in errors.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_watch_prints_a_line_a_round_and_ends_well(ingester, start, number):
    (ingester.root / "a.txt").write_text("a")
    (ingester.root / "b.txt").write_text("b")
    process = await start("ingest", "--watch", "1s", "--json")
    async with asyncio.timeout(30):
        first = json.loads(await process.stdout.readline())
        (ingester.root / "new.txt").write_text("new")
        second = json.loads(await process.stdout.readline())
    process.send_signal(number)
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert (first["indexed"], second["indexed"]) == (2, 1)
    assert all(json.loads(line) for line in output.splitlines())


@pytest.mark.parametrize(
    "words",
    [
        ["--watch", "1s", "--rebuild"],
        ["--watch", "soon"],
        ["--watch", "0s"],
        ["--modified-since", "x"],
        ["--modified-since", "7d", "--rebuild"],
        ["--activate"],
        ["--force", "--rebuild"],
        ["--activate", "--force"],
        ["--golden", "."],
        ["--golden", "/nowhere", "--rebuild"],
        ["--golden-threshold", "0.5", "--rebuild"],
        ["--golden-threshold", "2", "--rebuild", "--golden", "."],
        ["--golden-max-drop", "0.5", "--rebuild"],
    ],
)
def test_wrong_usage_is_told(words):
    app = typer.Typer()
    app.command()(ingest)
    result = CliRunner().invoke(app, ["/nowhere", "--collection", "docs", *words])
    assert result.exit_code == 2
    assert words[0] in result.output


async def until_sent(recorder, number: int) -> None:
    async with asyncio.timeout(30):
        while len(recorder.sent) < number:  # noqa: ASYNC110 — another process is watched
            await asyncio.sleep(0.005)
