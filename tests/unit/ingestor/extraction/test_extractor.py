import asyncio
import bz2
import gzip
import io
import os
import signal
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from ingestor.extraction import worker_pool
from ingestor.extraction.extractor import DocumentExtractor, Extracted
from ingestor.extraction.file_types import PDF
from ingestor.extraction.format_rules import FormatRule, LinesRule, TableRule, recipe
from ingestor.faults import Cause, Fault
from ingestor.settings import ExtractionSettings

SAMPLES = Path(__file__).parents[4] / "samples"
MIB = 2**20
PDF_BYTES = (SAMPLES / "planning/capacity-review-2026.pdf").read_bytes()
DOCX_BYTES = (SAMPLES / "policies/data-classification.docx").read_bytes()


@pytest.fixture
async def extractor():
    with ThreadPoolExecutor(2) as executor:
        async with DocumentExtractor(ExtractionSettings(workers=2), [], executor) as running:
            yield running


def pid(extractor: DocumentExtractor) -> int | None:
    pids = [worker._process.pid for worker in extractor._pool._workers if worker._process]
    assert len(pids) <= 1  # one file after the other keeps one worker busy
    return pids[0] if pids else None


async def extract(extractor: DocumentExtractor, path: str, data: bytes) -> Extracted | Fault:
    plan = extractor.plan(path)
    assert not isinstance(plan, Fault), plan
    assert not plan.is_container
    assert plan.recipe == ""
    return await extractor.extract(plan, data)


def packed(data: bytes, codec: str) -> bytes:
    match codec:
        case "gzip":
            return gzip.compress(data)
        case "bz2":
            return bz2.compress(data)
        case _:
            return bytes(pa.compress(data, codec, asbytes=True))


async def test_a_path_that_cannot_hold_text_is_a_fault(extractor):
    for path in ("a.png", "b/a.mp4", "a.exe", "a.xls", "a.xz", "a.zip.gz"):
        fault = extractor.plan(path)
        assert isinstance(fault, Fault), path
        assert fault.cause == Cause.UNSUPPORTED_TYPE


@pytest.mark.parametrize("path", ["a.parquet", "b/a.orc", "a.avro", "a.seq", "a.avro.gz"])
async def test_a_table_without_a_rule_says_what_to_configure(extractor, path):
    fault = extractor.plan(path)
    assert isinstance(fault, Fault)
    assert fault.cause == Cause.UNSUPPORTED_TYPE
    assert "ingest.formats" in fault.message


@pytest.mark.parametrize("data", [b"PAR1\0\0", b"ORC\0", b"Obj\x01\0", b"SEQ\x06\0"])
async def test_content_tells_a_table_without_a_suffix(extractor, data):
    fault = await extract(extractor, "part-00000", data)
    assert isinstance(fault, Fault)
    assert "ingest.formats" in fault.message


async def test_archives_are_containers_whatever_the_rules_say():
    with ThreadPoolExecutor(1) as executor:
        rule = LinesRule(match="logs/**", format="lines")
        extractor = DocumentExtractor(ExtractionSettings(), [rule], executor)
        for path in ("a.zip", "a.tar", "logs/a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.zst"):
            plan = extractor.plan(path)
            assert not isinstance(plan, Fault)
            assert plan.is_container
            assert plan.recipe == ""


async def test_the_first_rule_that_matches_plans_a_file_compressed_or_not():
    with ThreadPoolExecutor(1) as executor:
        rules: list[FormatRule] = [
            LinesRule(match="logs/*.log", format="lines", lines=5),
            LinesRule(match="*.log", format="lines", lines=7),
            TableRule(match="*.parquet*", format="parquet"),
        ]
        extractor = DocumentExtractor(ExtractionSettings(), rules, executor)
        plans = [extractor.plan(path) for path in ("logs/a.log", "logs/a.log.gz", "b/a.log")]
        recipes = [plan.recipe for plan in plans if not isinstance(plan, Fault)]
        assert recipes == [recipe(rules[0]), recipe(rules[0]), recipe(rules[1])]
        assert all(recipes)
        assert isinstance(extractor.plan("a.parquet.gz"), Fault)
        other = extractor.plan("a.txt")
        assert not isinstance(other, Fault)
        assert not other.is_container


@pytest.mark.parametrize(("suffix", "codec"), [("gz", "gzip"), ("bz2", "bz2"), ("zst", "zstd")])
async def test_a_compressed_file_is_extracted_as_what_it_holds(extractor, suffix, codec):
    extracted = await extract(extractor, f"b/a.md.{suffix}", packed(b"# Title\ntext", codec))
    assert extracted == Extracted("# Title\ntext", "Title", "text/markdown")
    pdf = await extract(extractor, f"report.{suffix}", packed(PDF_BYTES, codec))
    assert isinstance(pdf, Extracted)
    assert pdf.media_type == PDF
    assert len(pdf.pages) == 4


@pytest.mark.parametrize(("suffix", "codec"), [("gz", "gzip"), ("bz2", "bz2"), ("zst", "zstd")])
async def test_a_damaged_compressed_file_is_a_fault(extractor, suffix, codec):
    whole = packed(b"text of some length " * 5000, codec)
    for data in (whole[: len(whole) // 2], b"no " + whole):
        fault = await extract(extractor, f"a.txt.{suffix}", data)
        assert isinstance(fault, Fault)
        assert fault.cause == Cause.MALFORMED


@pytest.mark.parametrize(("suffix", "codec"), [("gz", "gzip"), ("bz2", "bz2"), ("zst", "zstd")])
async def test_a_bomb_is_too_large_and_costs_little(suffix, codec):
    settings = ExtractionSettings(max_member_bytes=4 * MIB, worker_memory_bytes=512 * MIB)
    bomb = packed(b"a" * (64 * MIB), codec)
    with ThreadPoolExecutor(1) as executor:
        async with DocumentExtractor(settings, [], executor) as extractor:
            fault = await extract(extractor, f"a.txt.{suffix}", bomb)
    assert isinstance(fault, Fault)
    assert fault.cause == Cause.TOO_LARGE
    assert "expands" in fault.message


def office_bomb(size: int, declared: int) -> bytes:
    """A document whose text expands to ``size`` bytes and whose directory says ``declared``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(DOCX_BYTES)) as given, zipfile.ZipFile(buffer, "w") as made:
        for member in given.infolist():
            content = given.read(member)
            if member.filename == "word/document.xml":
                filler = b"<w:p><w:r><w:t>" + b"a" * size + b"</w:t></w:r></w:p></w:body>"
                content = content.replace(b"</w:body>", filler)
            made.writestr(member.filename, content, zipfile.ZIP_DEFLATED)
            if member.filename == "word/document.xml":
                made.filelist[-1].file_size = declared or made.filelist[-1].file_size
    return buffer.getvalue()


@pytest.mark.parametrize(("declared", "cause"), [(0, Cause.TOO_LARGE), (1000, Cause.MALFORMED)])
async def test_an_office_document_that_is_a_bomb_is_refused(declared, cause):
    settings = ExtractionSettings(max_member_bytes=16 * MIB)
    with ThreadPoolExecutor(1) as executor:
        async with DocumentExtractor(settings, [], executor) as extractor:
            fault = await extract(extractor, "a.docx", office_bomb(32 * MIB, declared))
            assert isinstance(fault, Fault)
            assert fault.cause == cause
            assert "expand" in fault.message
            assert pid(extractor) is not None  # nothing crashed
            small = await extract(extractor, "a.docx", office_bomb(2 * MIB, 0))
            assert isinstance(small, Extracted)


async def test_pages_of_a_pdf_are_spans_of_its_text(extractor):
    extracted = await extract(extractor, "a.pdf", PDF_BYTES)
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
    extracted = await extract(extractor, "a.docx", DOCX_BYTES)
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
    data = f'<meta charset="latin-1">{page}'.encode("latin-1")
    extracted = await extract(extractor, "a.html", data)
    assert isinstance(extracted, Extracted)
    assert extracted.title == "A & B"
    assert extracted.text.split() == [
        *("Head", "5", "<", "6", "Grüße", "a", "picture", "state", "NOT_RESPONDING")
    ]


async def test_what_is_only_decoded_starts_no_process(extractor):
    cases = {
        "a.md": ("text/markdown", b"# Title\ntext", "Title"),
        "a.json": ("application/json", b'{"a": 1}', "a.json"),
        "a.py": ("text/x-python", b"a = 1", "a.py"),
        "README": ("text/plain", b"no suffix", "README"),
    }
    for name, (media_type, data, title) in cases.items():
        assert await extract(extractor, name, data) == Extracted(data.decode(), title, media_type)
    assert pid(extractor) is None


async def test_rows_without_a_rule_are_one_document(extractor):
    cases = {
        "a.csv": ("text/csv", b"a,b\n1,2", "a: 1\nb: 2"),
        "a.tsv": ("text/tab-separated-values", b"a\tb\n1\t2", "a: 1\nb: 2"),
        "a.jsonl": ("application/jsonl", b'{"a": 1}', "a: 1"),
    }
    for name, (media_type, data, text) in cases.items():
        assert await extract(extractor, name, data) == Extracted(text, name, media_type)


async def test_content_tells_a_pdf_without_a_suffix(extractor):
    extracted = await extract(extractor, "report", PDF_BYTES)
    assert isinstance(extracted, Extracted)
    assert extracted.media_type == PDF


def test_a_fallback_encoding_must_be_one():
    assert ExtractionSettings(fallback_encoding="cp1252").fallback_encoding == "cp1252"
    for name in ("no-such", "hex", ""):
        with pytest.raises(ValueError, match="not an encoding of text"):
            ExtractionSettings(fallback_encoding=name)


async def test_what_was_replaced_is_told(extractor):
    extracted = await extract(extractor, "a.txt", b"enough good characters \xff")
    assert isinstance(extracted, Extracted)
    assert extracted.metadata == {"replaced_characters": 1}
    extracted = await extract(extractor, "a.jsonl", b'{"a":1}\nbroken')
    assert isinstance(extracted, Extracted)
    assert extracted.metadata == {"broken_rows": 1}


@pytest.mark.parametrize(
    ("name", "data", "cause"),
    [
        ("a.pdf", b"", Cause.MALFORMED),
        ("a.pdf", b"%PDF-1.7 nonsense", Cause.MALFORMED),
        ("a.pdf", PDF_BYTES[: len(PDF_BYTES) // 2], Cause.MALFORMED),
        ("a.docx", DOCX_BYTES[: len(DOCX_BYTES) // 2], Cause.MALFORMED),
        ("a.html", b"<html><body> </body></html>", Cause.NO_TEXT),
        ("a.html", b"<p>\x00\x01", Cause.NOT_TEXT),
        ("a.txt", b" \n\t", Cause.NO_TEXT),
        ("a.csv", b"\n\n", Cause.NO_TEXT),
        ("a.jsonl", b"no\njson", Cause.MALFORMED),
        ("a.md", b"\x7fELF\x00", Cause.NOT_TEXT),
        ("a.gz", b"", Cause.NO_TEXT),
    ],
)
async def test_bad_files_are_faults_with_a_cause(extractor, name, data, cause):
    fault = await extract(extractor, name, data)
    assert isinstance(fault, Fault)
    assert fault.cause == cause
    assert fault.message


async def test_a_killed_worker_costs_its_file_a_second_attempt_only(extractor):
    assert isinstance(await extract(extractor, "a.pdf", PDF_BYTES), Extracted)
    before = pid(extractor)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert isinstance(await extract(extractor, "a.pdf", PDF_BYTES), Extracted)
    assert pid(extractor) not in {None, before}


async def test_a_file_that_crashes_a_fresh_worker_is_to_blame(extractor, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(worker_pool, "_PROGRAM", "import os; os._exit(9)")
        fault = await extract(extractor, "a.pdf", PDF_BYTES)
        assert isinstance(fault, Fault)
        assert fault.cause == Cause.WORKER_CRASHED
    assert isinstance(await extract(extractor, "a.pdf", PDF_BYTES), Extracted)


async def test_a_file_that_takes_too_long_is_stopped(monkeypatch):
    with ThreadPoolExecutor(1) as executor:
        settings = ExtractionSettings(workers=2, timeout_s=0.2)
        async with DocumentExtractor(settings, [], executor) as extractor:
            hanging = "import signal; signal.pause()"
            monkeypatch.setattr(worker_pool, "_PROGRAM", hanging)
            fault = await extract(extractor, "a.pdf", PDF_BYTES)
            assert isinstance(fault, Fault)
            assert fault.cause == Cause.TIMED_OUT
            assert pid(extractor) is None


async def test_text_over_the_bound_is_refused():
    with ThreadPoolExecutor(1) as executor:
        settings = ExtractionSettings(workers=2, max_characters=100)
        async with DocumentExtractor(settings, [], executor) as extractor:
            fault = await extract(extractor, "a.pdf", PDF_BYTES)
    assert isinstance(fault, Fault)
    assert fault.cause == Cause.TOO_LARGE


async def test_a_file_that_takes_all_memory_is_too_large_and_its_worker_is_replaced(monkeypatch):
    greedy = worker_pool._PROGRAM.replace(
        "from ingestor.extraction import",
        "import ingestor.extraction.rich_text as r; r.parse=lambda *_: bytearray(2<<30); "
        "from ingestor.extraction import",
    )
    settings = ExtractionSettings(worker_memory_bytes=1024 * MIB)
    with ThreadPoolExecutor(1) as executor:
        async with DocumentExtractor(settings, [], executor) as extractor:
            with monkeypatch.context() as broken:
                broken.setattr(worker_pool, "_PROGRAM", greedy)
                fault = await extract(extractor, "a.pdf", PDF_BYTES)
                assert isinstance(fault, Fault)
                assert fault.cause == Cause.TOO_LARGE
                assert "worker_memory_bytes" in fault.message
                assert pid(extractor) is None
            assert isinstance(await extract(extractor, "a.pdf", PDF_BYTES), Extracted)


async def test_workers_import_nothing_heavy():
    program = (
        "import sys; from ingestor.extraction import worker, file_text, rich_text; "
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
    monkeypatch.setattr(worker_pool, "_ENVIRONMENT", ("HOME", "XDG_CACHE_HOME"))
    with ThreadPoolExecutor(1) as executor:
        async with DocumentExtractor(ExtractionSettings(workers=2), [], executor) as extractor:
            files = {"a.pdf": PDF_BYTES, "a.docx": DOCX_BYTES, "a.html": b"<p>text"}
            for name, data in files.items():
                assert isinstance(await extract(extractor, name, data), Extracted)
    assert list(tmp_path.rglob("*")) == []


async def test_a_large_document_costs_no_process(extractor):
    page = b"<p>" + b"some words " * 200_000 + b"</p>"
    assert isinstance(await extract(extractor, "a.html", page), Extracted)
    before = pid(extractor)
    large = await extract(extractor, "a.html", page)
    assert isinstance(large, Extracted)
    assert len(large.text) > MIB
    assert pid(extractor) == before is not None
