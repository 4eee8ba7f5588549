import asyncio
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingestor import extraction
from ingestor.extraction import HTML, PDF, DocumentExtractor, Extracted, declared_type
from ingestor.faults import Cause, Fault
from ingestor.settings import ExtractionSettings

SAMPLES = Path(__file__).parents[3] / "samples"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PDF_BYTES = (SAMPLES / "planning/capacity-review-2026.pdf").read_bytes()
DOCX_BYTES = (SAMPLES / "policies/data-classification.docx").read_bytes()


@pytest.fixture
async def extractor():
    with ThreadPoolExecutor(2) as executor:
        async with DocumentExtractor(ExtractionSettings(workers=1), executor) as running:
            yield running


def pid(extractor: DocumentExtractor) -> int | None:
    process = extractor._workers[0]._process
    return None if process is None else process.pid


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
    "name", ["a.png", "a.mp4", "a.zip", "a.txt.gz", "a.tar.gz", "a.exe", "a.xls", "a.bz2"]
)
def test_names_tell_what_holds_no_text(name):
    fault = declared_type(name)
    assert isinstance(fault, Fault)
    assert fault.cause == Cause.UNSUPPORTED_TYPE


async def test_pages_of_a_pdf_are_spans_of_its_text(extractor):
    extracted = await extractor.extract("a.pdf", PDF, PDF_BYTES)
    assert isinstance(extracted, Extracted)
    assert extracted.title == "Capacity review 2026: lake cluster"
    assert [number for number, _, _ in extracted.pages] == [1, 2, 3, 4]
    assert extracted.pages[0][1] == 0
    assert extracted.pages[-1][2] == len(extracted.text)
    for number, start, end in extracted.pages:
        assert f"page {number} of 4" in extracted.text[start:end]
    gaps = zip(extracted.pages, extracted.pages[1:], strict=False)
    assert all(extracted.text[left[2] : right[1]] == "\n\n" for left, right in gaps)
    assert "\r" not in extracted.text
    assert extracted.metadata["subject"] == "Capacity planning"


async def test_docx(extractor):
    extracted = await extractor.extract("a.docx", DOCX, DOCX_BYTES)
    assert isinstance(extracted, Extracted)
    assert extracted.title == "Data classification policy"
    assert "Every dataset on the lake cluster" in extracted.text
    assert extracted.pages == ()


async def test_html_is_text_without_markup_or_noise(extractor):
    page = (
        "<html><head><title>A &amp; B</title><style>p{color:red}</style></head><body>"
        "<script>var hidden=1</script><h1>Head</h1><p>5 &lt; 6 Gr\xfc\xdfe</p>"
        '<img src="data:image/png;base64,AAAA" alt="a picture">'
        "<table><tr><th>state</th></tr><tr><td>NOT_RESPONDING</td></tr></table></body></html>"
    )
    extracted = await extractor.extract(
        "a.html", HTML, f'<meta charset="latin-1">{page}'.encode("latin-1")
    )
    assert isinstance(extracted, Extracted)
    assert extracted.title == "A & B"
    assert extracted.text.split() == [
        *("Head", "5", "<", "6", "Grüße", "a", "picture", "state", "NOT_RESPONDING")
    ]


async def test_plain_formats_start_no_process(extractor):
    cases = {
        "a.md": ("text/markdown", b"# Title\ntext", "Title", "# Title\ntext"),
        "a.csv": ("text/csv", b"a,b\n1,2", "a.csv", "a: 1\nb: 2"),
        "a.tsv": ("text/tab-separated-values", b"a\tb\n1\t2", "a.tsv", "a: 1\nb: 2"),
        "a.jsonl": ("application/jsonl", b'{"a": 1}', "a.jsonl", "a: 1"),
        "a.json": ("application/json", b'{"a": 1}', "a.json", '{"a": 1}'),
        "README": (None, b"no suffix", "README", "no suffix"),
    }
    for name, (media_type, data, title, text) in cases.items():
        extracted = await extractor.extract(name, media_type, data)
        assert extracted == Extracted(text, title, media_type or "text/plain")
    assert pid(extractor) is None


async def test_content_tells_a_pdf_without_a_suffix(extractor):
    extracted = await extractor.extract("report", None, PDF_BYTES)
    assert isinstance(extracted, Extracted)
    assert extracted.media_type == PDF


def test_a_fallback_encoding_must_be_one():
    assert ExtractionSettings(fallback_encoding="cp1252").fallback_encoding == "cp1252"
    for name in ("no-such", "hex", ""):
        with pytest.raises(ValueError, match="not an encoding of text"):
            ExtractionSettings(fallback_encoding=name)


async def test_what_was_replaced_is_told(extractor):
    extracted = await extractor.extract("a.txt", "text/plain", b"enough good characters \xff")
    assert isinstance(extracted, Extracted)
    assert extracted.metadata == {"replaced_characters": 1}
    extracted = await extractor.extract("a.jsonl", "application/jsonl", b'{"a":1}\nbroken')
    assert isinstance(extracted, Extracted)
    assert extracted.metadata == {"broken_rows": 1}


@pytest.mark.parametrize(
    ("media_type", "data", "cause"),
    [
        (PDF, b"", Cause.MALFORMED),
        (PDF, b"%PDF-1.7 nonsense", Cause.MALFORMED),
        (PDF, PDF_BYTES[: len(PDF_BYTES) // 2], Cause.MALFORMED),
        (DOCX, DOCX_BYTES[: len(DOCX_BYTES) // 2], Cause.MALFORMED),
        (HTML, b"<html><body> </body></html>", Cause.NO_TEXT),
        (HTML, b"<p>\x00\x01", Cause.NOT_TEXT),
        ("text/plain", b" \n\t", Cause.NO_TEXT),
        ("text/csv", b"\n\n", Cause.NO_TEXT),
        ("text/markdown", b"\x7fELF\x00", Cause.NOT_TEXT),
    ],
)
async def test_bad_files_are_faults_with_a_cause(extractor, media_type, data, cause):
    fault = await extractor.extract("a", media_type, data)
    assert isinstance(fault, Fault)
    assert fault.cause == cause
    assert fault.message


async def test_a_killed_worker_costs_its_file_a_second_attempt_only(extractor):
    assert isinstance(await extractor.extract("a.pdf", PDF, PDF_BYTES), Extracted)
    before = pid(extractor)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert isinstance(await extractor.extract("a.pdf", PDF, PDF_BYTES), Extracted)
    assert pid(extractor) not in {None, before}


async def test_a_file_that_crashes_a_fresh_worker_is_to_blame(extractor, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(extraction, "_PROGRAM", "import os; os._exit(9)")
        fault = await extractor.extract("a.pdf", PDF, PDF_BYTES)
        assert isinstance(fault, Fault)
        assert fault.cause == Cause.WORKER_CRASHED
    assert isinstance(await extractor.extract("a.pdf", PDF, PDF_BYTES), Extracted)


async def test_a_file_that_takes_too_long_is_stopped(monkeypatch):
    with ThreadPoolExecutor(1) as executor:
        settings = ExtractionSettings(workers=1, timeout_s=0.2)
        async with DocumentExtractor(settings, executor) as extractor:
            hanging = "import signal; signal.pause()"
            monkeypatch.setattr(extraction, "_PROGRAM", hanging)
            fault = await extractor.extract("a.pdf", PDF, PDF_BYTES)
            assert isinstance(fault, Fault)
            assert fault.cause == Cause.TIMED_OUT
            assert pid(extractor) is None


async def test_text_over_the_bound_is_refused():
    with ThreadPoolExecutor(1) as executor:
        settings = ExtractionSettings(workers=1, max_characters=100)
        async with DocumentExtractor(settings, executor) as extractor:
            fault = await extractor.extract("a.pdf", PDF, PDF_BYTES)
    assert isinstance(fault, Fault)
    assert fault.cause == Cause.TOO_LARGE


async def test_a_worker_that_takes_all_memory_dies_alone():
    greedy = extraction._PROGRAM.replace(
        "from ingestor import",
        "import ingestor.rich_text as r; r.parse=lambda *_: bytearray(2<<30); from ingestor import",
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", greedy, str(sys.path).replace("'", '"'), str(1 << 30)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    request = b'{"media_type": "x", "timeout_s": 5, "max_characters": 9}'
    frames = b"".join(len(frame).to_bytes(8, "big") + frame for frame in (request, b"data"))
    output, errors = await process.communicate(frames)
    assert output == b""
    assert b"MemoryError" in errors


async def test_workers_import_nothing_heavy():
    program = (
        "import sys; from ingestor import extraction_worker, rich_text; "
        "print([n for n in ('grpc', 'google', 'pydantic', 'pyarrow', 'numpy', 'opentelemetry') "
        "if n in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert output.strip() == b"[]"


async def test_no_text_is_cached_in_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ThreadPoolExecutor(1) as executor:
        async with DocumentExtractor(ExtractionSettings(workers=1), executor) as extractor:
            for media_type, data in ((PDF, PDF_BYTES), (DOCX, DOCX_BYTES), (HTML, b"<p>text")):
                assert isinstance(await extractor.extract("a", media_type, data), Extracted)
    assert list(tmp_path.rglob("*")) == []
