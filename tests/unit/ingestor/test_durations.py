from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from common.config import load
from common.errors import ConfigurationError
from ingestor.durations import moment_us, parse_duration, parse_moment
from ingestor.settings import IngestorConfig


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("90m", 5400), ("24h", 86_400), (" 7 D ", 604_800), ("1w", 604_800)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == parse_moment(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "0s", "7", "-7d", "d", "1.5h", "1h30m", "7 days"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="30s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2026-03-01T06:00+01:00", datetime(2026, 3, 1, 5, tzinfo=UTC)),
        ("2026-03-01T06:00:00Z", datetime(2026, 3, 1, 6, tzinfo=UTC)),
        (
            datetime(2026, 3, 1, 6, tzinfo=timezone(timedelta(hours=1))),
            datetime(2026, 3, 1, 5, tzinfo=UTC),
        ),
        # Without an offset: the machine's own time.
        ("2026-03-01", datetime(2026, 3, 1).astimezone()),
        (date(2026, 3, 1), datetime(2026, 3, 1).astimezone()),
        ("2026-03-01 06:30", datetime(2026, 3, 1, 6, 30).astimezone()),
    ],
)
def test_points_of_time(given, expected):
    assert parse_moment(given) == expected


@pytest.mark.parametrize("given", ["yesterday", "2026-13-01", "", 7, 7.5, None, ["7d"], "9999-99"])
def test_what_is_no_point_of_time_is_refused(given):
    with pytest.raises(ValueError, match="7d, 24h, 90m, 2026-03-01"):
        parse_moment(given)


def test_a_duration_counts_from_now():
    now = datetime(2026, 3, 8, tzinfo=UTC)
    assert moment_us(timedelta(days=7), now) == moment_us(datetime(2026, 3, 1, tzinfo=UTC), now)
    assert moment_us(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), now) == 1_000_000


def test_the_setting_takes_what_yaml_makes_of_it(tmp_path):
    file = tmp_path / "sluice.yaml"
    for text, expected in {
        "7d": timedelta(days=7),
        "2026-03-01": parse_moment("2026-03-01"),
    }.items():
        file.write_text(f"ingest:\n  modified_since: {text}\n")
        loaded = load(IngestorConfig, file=file, environ={})
        assert loaded.ingest.modified_since == expected
    file.write_text("ingest:\n  modified_since: soon\n")
    with pytest.raises(ConfigurationError, match=r"ingest.modified_since: write a time such as 7d"):
        load(IngestorConfig, file=file, environ={})
