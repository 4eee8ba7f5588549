"""What the parsers set in their own process, and here in that of the tests, is put back."""

import csv

import pytest


@pytest.fixture(autouse=True)
def _field_size_limit():
    limit = csv.field_size_limit()
    yield
    csv.field_size_limit(limit)
