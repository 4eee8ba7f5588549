import pytest

from ingestor.extraction.file_types import PDF, declared_type, uncompressed
from ingestor.faults import Cause, Fault


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.MD", "text/markdown"),
        ("a.log", "text/plain"),
        ("a.pdf", PDF),
        ("a.jsonl", "application/jsonl"),
        ("part-00000", None),
        ("a.unheard", None),
        ("a.py", "text/x-python"),
    ],
)
def test_names_tell_types(name, media_type):
    assert declared_type(name) == media_type


@pytest.mark.parametrize(
    "name", ["a.png", "a.mp4", "a.zip", "a.tar", "a.exe", "a.xls", "a.xz", "a.parquet", "A.ORC"]
)
def test_names_tell_what_is_no_document(name):
    fault = declared_type(name)
    assert isinstance(fault, Fault)
    assert fault.cause == Cause.UNSUPPORTED_TYPE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.log.gz", ("a.log", "gzip")),
        ("a.LOG.GZ", ("a.LOG", "gzip")),
        ("a.bz2", ("a", "bz2")),
        ("a.tar.zst", ("a.tar", "zstd")),
        ("a.tgz", ("a.tar", "gzip")),
        ("a.log", ("a.log", "")),
        (".gz", (".gz", "")),
    ],
)
def test_a_compression_is_looked_through(name, expected):
    assert uncompressed(name) == expected
