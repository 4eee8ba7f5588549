"""The commands as processes: killed at any moment and run again, exit codes, dead letters."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "import typer; from ingestor.commands import ingest; typer.run(ingest)"
FILES = 120


def arguments(ingester) -> list[str]:
    return [
        *(sys.executable, "-c", PROGRAM, str(ingester.root)),
        *("--collection", "docs", "--target", ingester.target, "--json"),
    ]


async def start(ingester, *command: str) -> asyncio.subprocess.Process:
    settings = {
        "SLUICE_INGEST__STATE_URI": str(ingester.state),
        "SLUICE_INGEST__CHECKPOINT_S": "0.05",
        "SLUICE_INGEST__STREAM__LINGER_S": "0.001",
        "SLUICE_TELEMETRY__LOG_LEVEL": "error",
    }
    return await asyncio.create_subprocess_exec(
        *(command or arguments(ingester)),
        env=os.environ | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


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


async def test_killed_at_random_moments(ingester, recorder):
    generator = random.Random(7)
    recorder.limits.max_batch_documents = 2
    killed = 0
    for number in range(FILES):
        path = ingester.root / f"{number % 7}" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number}")
    while killed < 6:
        process = await start(ingester)
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
    process = await start(ingester)
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    held = {d.source_uri: d.content for d in recorder.documents.values()}
    assert held == clean_run(ingester.root)
    summary = json.loads(output)
    assert summary["documents"] == len(held)
    process = await start(ingester)
    output, _ = await process.communicate()
    assert json.loads(output)["files_opened"] == 0


async def test_sigterm_ends_with_what_was_done_recorded(ingester, recorder):
    recorder.limits.max_batch_documents = 1
    for number in range(30):
        (ingester.root / f"{number}.txt").write_text(f"{number}")
    recorder.silent = True
    process = await start(ingester)
    async with asyncio.timeout(30):
        while not recorder.batches:  # noqa: ASYNC110 — another process is watched
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert "goes on where it stopped" in errors.decode()


async def test_exit_codes_and_the_summary(ingester):
    (ingester.root / "a.txt").write_text("text")
    (ingester.root / "b.pdf").write_bytes(b"broken")
    process = await start(ingester)
    output, errors = await process.communicate()
    assert process.returncode == 3, errors.decode()
    summary = json.loads(output)
    assert (summary["indexed"], summary["dead_letters"], summary["index_version"]) == (1, 1, 1)
    assert summary["roots"][0]["root_uri"] == f"{ingester.root.as_uri()}/"


async def test_dead_letters_on_the_command_line(ingester):
    (ingester.root / "a.pdf").write_bytes(b"broken")
    (ingester.root / "b.txt").write_text("")
    await (await start(ingester)).communicate()

    async def dead_letters(*words: str) -> tuple[int | None, str]:
        program = "from ingestor.commands import dead_letters; dead_letters()"
        process = await start(ingester, sys.executable, "-c", program, *words)
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
    code, retried = await dead_letters("retry", "--target", ingester.target, "--json")
    assert code == 3
    assert (json.loads(retried)["tried"], json.loads(retried)["dead_letters"]) == (2, 1)
    assert (await dead_letters("drop", uri, "--json"))[1] == '{"dropped": 1}\n'
    assert await dead_letters("list", "--json") == (0, '{"dead_letters": []}\n')
