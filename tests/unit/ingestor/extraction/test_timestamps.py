from datetime import UTC, datetime

import pytest

from ingestor.extraction.timestamps import Timestamps


def moment(*fields: int) -> int:
    return round(datetime(*fields, tzinfo=UTC).timestamp() * 1_000_000)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("pattern", "line", "expected"),
    [
        (
            "%Y-%m-%d %H:%M:%S,%f",
            "2015-10-18 18:01:47,978 INFO [main]",
            (2015, 10, 18, 18, 1, 47, 978000),
        ),
        ("%y%m%d %H%M%S", "081109 203615 148 INFO dfs.DataNode", (2008, 11, 9, 20, 36, 15)),
        ("%y/%m/%d %H:%M:%S", "17/06/09 20:10:40 INFO executor", (2017, 6, 9, 20, 10, 40)),
        ("[%a %b %d %H:%M:%S %Y]", "[Sun Dec 04 04:47:44 2005] [notice]", (2005, 12, 4, 4, 47, 44)),
        (
            "%Y%m%d-%H:%M:%S:%f",
            "20171223-22:15:29:606|Step_LSC",
            (2017, 12, 23, 22, 15, 29, 606000),
        ),
        ("%s", "- 1117838570 2005.06.03 R02-M1", (2005, 6, 3, 22, 42, 50)),
        ("%Y-%m-%d %H:%M:%S", "nova-api.log.1 2017-05-16 00:00:00.008 25746", (2017, 5, 16)),
        (
            "%Y-%m-%dT%H:%M:%S.%f%z",
            "at 2026-01-01T00:30:00.5+01:00 x",
            (2025, 12, 31, 23, 30, 0, 500000),
        ),
        ("%Y-%m-%dT%H:%M:%S%z", "2026-01-01T00:30:00Z", (2026, 1, 1, 0, 30)),
        ("%d/%b/%Y:%H:%M:%S %z", '[10/Oct/2000:13:55:36 -0700] "GET"', (2000, 10, 10, 20, 55, 36)),
        ("%m/%d/%Y %I:%M:%S %p", "1/2/2026 12:05:09 AM x", (2026, 1, 2, 0, 5, 9)),
        ("%Y-%m-%d %H:%M:%S", "2016-12-31 23:59:60 leap", (2016, 12, 31, 23, 59, 59)),
    ],
)
def test_times_of_common_logs(pattern, line, expected):
    assert Timestamps(pattern, None).find(line) == moment(*expected)


def test_lines_without_a_time():
    timestamps = Timestamps("%Y-%m-%d %H:%M:%S", None)
    for line in (
        "",
        "no time",
        "2026-02-30 00:00:00",
        "12026-01-01 00:00:00",
        "x" * 300 + "2026-01-01 00:00:00",
    ):
        assert timestamps.find(line) is None


def test_a_year_that_is_not_told_is_given_and_turns():
    timestamps = Timestamps("%b %d %H:%M:%S", 2025)
    found = [
        timestamps.find(f"{day} 12:00:00 host")
        for day in ("Jul  1", "Dec 31", "Jan 1", "Dec 31", "Jan  2")
    ]
    assert found == [
        moment(2025, 7, 1, 12),
        moment(2025, 12, 31, 12),
        moment(2026, 1, 1, 12),
        moment(2025, 12, 31, 12),
        moment(2026, 1, 2, 12),
    ]


@pytest.mark.parametrize(
    ("pattern", "year"),
    [
        ("%Q", None),
        ("%Y-%m-%d", None),
        ("%H:%M", 2026),
        ("%b %d %H:%M", None),
        ("%Y-%m-%d %H", 2026),
        ("%Y %Y-%m-%d %H", None),
        ("%s", 2026),
        ("", None),
        ("100%", None),
    ],
)
def test_patterns_that_cannot_work(pattern, year):
    with pytest.raises(ValueError, match=r"it must tell|unknown|leave out"):
        Timestamps(pattern, year)
