import asyncio
import io
import time

import pytest

from ingestor.job.summary import Counters, summarize
from ingestor.progress import ProgressMode, choose_mode, describe, seconds_left, shown


def counters(**values) -> Counters:
    return Counters(started=time.monotonic() - 10, **values)


def test_totals_are_at_least_while_files_are_being_found():
    found = counters(files_due=1200, files_done=300, bytes_read=5_000_000)
    assert "300 of ≥ 1,200 files" in describe(found)
    assert "0.5 MB/s" in describe(found)
    found.is_listing_done = True
    assert "300 of 1,200 files" in describe(found)
    assert "dead letters" not in describe(found)
    found.dead_letters = 3
    assert "3 dead letters" in describe(found)


def test_time_left_is_by_bytes_and_only_when_all_is_listed():
    found = counters(bytes_due=400, bytes_done=100)
    assert seconds_left(found) is None
    found.is_listing_done = True
    assert seconds_left(found) == pytest.approx(30, rel=0.01)
    assert seconds_left(counters(is_listing_done=True)) is None


def test_a_bar_needs_a_terminal(monkeypatch):
    stream = io.StringIO()
    assert choose_mode(stream, quiet=False) is ProgressMode.LINES
    assert choose_mode(stream, quiet=True) is ProgressMode.NONE
    monkeypatch.setattr(stream, "isatty", lambda: True)
    assert choose_mode(stream, quiet=False) is ProgressMode.BAR


async def test_the_bar_shows_names_as_they_are():
    stream = io.StringIO()
    async with shown(counters(), "file:///[red]/\x1b[2J", ProgressMode.BAR, stream):
        async with asyncio.timeout(5):
            while not stream.getvalue():  # noqa: ASYNC110 — a stream tells of no event
                await asyncio.sleep(0)
    async with shown(counters(), "file:///x", ProgressMode.NONE, stream):
        pass
    assert "file:///[red]/\ufffd[2J" in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()
    assert "file:///x" not in stream.getvalue()


def test_rates_of_the_summary():
    summary = summarize(
        counters(indexed=15, updated=5, chunks=100, bytes_read=10_000_000),
        "file:///d/",
        3,
        stopped=False,
    )
    assert summary.documents_per_s == pytest.approx(2, rel=0.01)
    assert summary.chunks_per_s == pytest.approx(10, rel=0.01)
    assert summary.mb_per_s == pytest.approx(1, rel=0.01)
    assert (summary.root_uri, summary.index_version) == ("file:///d/", 3)
