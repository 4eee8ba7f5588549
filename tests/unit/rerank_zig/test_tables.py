"""The committed Unicode tables are what their generator writes."""

from __future__ import annotations

import unicodedata

import pytest

from rerank_zig.tools import unicode_tables


def test_the_committed_tables_are_fresh() -> None:
    committed = unicode_tables.TABLES.read_text(encoding="utf-8")
    if f'version = "{unicodedata.unidata_version}"' not in committed:
        pytest.skip(f"this Python knows another Unicode ({unicodedata.unidata_version})")
    assert committed == unicode_tables.tables()
