import bz2
import gc
import gzip
import io
import tarfile
import time
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from ingestor.extraction import archives
from ingestor.extraction.extracted import Part, Refusal
from ingestor.extraction.worker_protocol import Reading
from ingestor.faults import Cause
from ingestor.settings import ExtractionSettings

SAMPLES = Path(__file__).parents[4] / "samples"
PDF_BYTES = (SAMPLES / "planning/capacity-review-2026.pdf").read_bytes()
MEMBERS = {
    "b/readme.md": b"# Title\ntext",
    "b/a b.csv": b"a,b\n1,2",
    "report.pdf": PDF_BYTES,
    "logs/x.log.gz": gzip.compress(b"a line"),
}
KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.zst"]
CODECS = {"tar.gz": "gzip", "tar.bz2": "bz2", "tar.zst": "zstd"}


def packed(kind: str, members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
            for name, content in members.items():
                made.writestr(name, content)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    match kind:
        case "tar.gz":
            return gzip.compress(buffer.getvalue())
        case "tar.bz2":
            return bz2.compress(buffer.getvalue())
        case "tar.zst":
            return bytes(pa.compress(buffer.getvalue(), "zstd", asbytes=True))
    return buffer.getvalue()


def read(kind: str, data: bytes, settings: ExtractionSettings | None = None) -> list[Part | None]:
    reading = Reading("zip" if kind == "zip" else "tar", f"a.{kind}", codec=CODECS.get(kind, ""))
    limits = (settings or ExtractionSettings()).limits()
    return list(archives.parts(reading, io.BytesIO(data), limits))


@pytest.mark.parametrize("kind", KINDS)
def test_each_member_is_a_document_of_its_own_type(kind):
    parts = {part.fragment: part.extracted for part in read(kind, packed(kind, MEMBERS)) if part}
    assert list(parts) == [
        "member=b/readme.md",
        "member=b/a%20b.csv",
        "member=report.pdf",
        "member=logs/x.log.gz",
    ]
    readme, rows, report, log = parts.values()
    assert (readme.title, readme.media_type) == ("Title", "text/markdown")
    assert (rows.text, rows.title) == ("a: 1\nb: 2", "a b.csv")
    assert len(report.pages) == 4
    assert (log.text, log.media_type) == ("a line", "text/plain")


@pytest.mark.parametrize("kind", KINDS)
def test_members_that_give_no_document_are_passed_over(kind):
    members = {
        "a.png": b"\x89PNG",
        "inner.tar.gz": packed("tar.gz", MEMBERS),
        "broken.pdf": b"%PDF-1.7 nonsense",
        "empty.txt": b"",
        "binary.txt": b"\0\1",
        "large.txt": b"x" * 5000,
        "good.txt": b"text",
        ".hidden/x.txt": b"text",
        "__MACOSX/y.txt": b"text",
    }
    parts = read(kind, packed(kind, members), ExtractionSettings(max_member_bytes=2000))
    assert [part and part.fragment for part in parts] == [*[None] * 6, "member=good.txt"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_of_which_no_member_gives_a_document_has_the_firsts_reason(kind):
    with pytest.raises(Refusal) as raised:
        read(kind, packed(kind, {"a.png": b"\x89PNG", "b.txt": b"\0"}))
    assert raised.value.fault.cause == Cause.UNSUPPORTED_TYPE
    assert read(kind, packed(kind, {})) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_an_archive_cut_short_is_malformed(kind, share):
    rows = "".join(f"{number * 7919 % 10_007}\n" for number in range(20_000))
    whole = packed(kind, {**MEMBERS, "last.txt": rows.encode()})
    with pytest.raises(Refusal) as raised:
        read(kind, whole[: int(len(whole) * share)])
    assert raised.value.fault.cause == Cause.MALFORMED


@pytest.mark.parametrize("kind", KINDS)
def test_junk_is_malformed(kind):
    with pytest.raises(Refusal) as raised:
        read(kind, b"no archive " * 100)
    assert raised.value.fault.cause == Cause.MALFORMED


def test_of_members_of_one_name_the_first_counts():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("a.txt", b"first")
        with pytest.warns(UserWarning, match="Duplicate"):
            made.writestr("a.txt", b"second")
    first, second = read("zip", buffer.getvalue())
    assert first is not None
    assert first.extracted.text == "first"
    assert second is None


def test_links_are_passed_over_and_odd_names_kept():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name in ("./a\nb 😀.txt", "\udcff.txt", "n" * 3000 + ".txt"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"text"))
    parts = read("tar", buffer.getvalue())
    assert [part and part.fragment for part in parts] == [
        None,
        "member=a%0Ab%20%F0%9F%98%80.txt",
        "member=%FF.txt",
        None,
    ]


def test_a_zip_whose_directory_declares_too_much_is_refused_unopened():
    data = packed("zip", {f"{number}.txt": b"a" * 2**20 for number in range(40)})
    assert len(data) < 2**17
    with pytest.raises(Refusal) as raised:
        read("zip", data, ExtractionSettings(max_expanded_bytes=2**24))
    assert raised.value.fault.cause == Cause.TOO_LARGE


def test_a_zip_whose_directory_lies_gives_nothing_of_the_member():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("bomb.txt", b"a" * 2**24)
        made.filelist[0].file_size = 100
    with pytest.raises(Refusal) as raised:
        read("zip", buffer.getvalue())
    assert raised.value.fault.cause == Cause.MALFORMED


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.zst"])
def test_a_tar_that_expands_beyond_the_bound_is_refused_early(kind):
    members = {f"{number}.txt": b"a" * 2**20 for number in range(64)}
    began = time.monotonic()
    with pytest.raises(Refusal) as raised:
        read(kind, packed(kind, members), ExtractionSettings(max_expanded_bytes=2**22))
    assert raised.value.fault.cause == Cause.TOO_LARGE
    assert time.monotonic() - began < 10


def test_a_member_that_declares_more_than_the_bound_is_refused_unread():
    member = tarfile.TarInfo("bomb.txt")
    member.size = 2**40
    data = gzip.compress(member.tobuf() + bytes(10_000))
    with pytest.raises(Refusal) as raised:
        read("tar.gz", data)
    assert raised.value.fault.cause == Cause.TOO_LARGE


def test_an_encrypted_member_is_passed_over():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("a.txt", b"text")
        made.writestr("b.txt", b"text")
        made.filelist[0].flag_bits |= 1
    data = bytearray(buffer.getvalue())
    data[6] |= 1  # the same flag in the member's own header
    first, second = read("zip", bytes(data))
    assert first is None
    assert second is not None


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.zst"])
def test_what_expands_as_only_a_bomb_does_is_refused_long_before_the_bound(kind, monkeypatch):
    monkeypatch.setattr("ingestor.extraction.expansion._FREE_BYTES", 2**20)
    bomb = packed(kind, {f"{number}.txt": b"a" * 2**20 for number in range(32)})
    with pytest.raises(Refusal) as raised:
        read(kind, bomb)
    assert raised.value.fault.cause == Cause.TOO_LARGE
    assert "bombs" in raised.value.fault.message
    rows = "".join(f"{number * 7919 % 10_007}\n" for number in range(400_000))
    assert len(read(kind, packed(kind, {"rows.txt": rows.encode()}))) == 1


def test_of_many_members_only_the_one_in_hand_is_kept():
    members = {f"{number}.txt": b"text" for number in range(500)}
    reading = Reading("tar", "a.tar.gz", codec="gzip")
    limits = ExtractionSettings().limits()
    parts = archives.parts(reading, io.BytesIO(packed("tar.gz", members)), limits)
    assert len(list(zip(range(400), parts, strict=False))) == 400
    held = sum(isinstance(thing, tarfile.TarInfo) for thing in gc.get_objects())
    assert 1 <= held < 10
    assert len(list(parts)) == 100


def found_before_the_fault(kind: str, data: bytes) -> tuple[list[str], Cause | str]:
    reading = Reading("tar", f"a.{kind}", codec=CODECS.get(kind, ""))
    parts = archives.parts(reading, io.BytesIO(data), ExtractionSettings().limits())
    found: list[str] = []
    with pytest.raises(Refusal) as raised:
        found.extend(part.fragment for part in parts if part)
    return found, raised.value.fault.cause


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize("damage", ["cut", "cut in a header", "header", "only a header"])
def test_a_tar_that_does_not_end_as_one_is_malformed(kind, damage):
    whole = packed("tar", {"a.txt": b"first", "b.txt": b"second", "c.txt": b"third"})
    member = 1024  # its header and its content, each in blocks of 512 bytes
    data = {
        "cut": whole[: 2 * member],
        "cut in a header": whole[: 2 * member + 100],
        "header": whole[: 2 * member] + b"x" * 512 + whole[2 * member + 512 :],
        "only a header": whole[: 2 * member + 512],
    }[damage]
    data = gzip.compress(data) if kind == "tar.gz" else data
    expected = ["member=a.txt", "member=b.txt"]
    assert found_before_the_fault(kind, data) == (expected, Cause.MALFORMED)


def test_one_block_of_zeros_ends_a_tar():
    whole = packed("tar", {"a.txt": b"first"})
    assert len(read("tar", whole[: 1024 + 512])) == 1


def test_two_paths_that_are_one_after_all_are_one_document():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("./a.txt", "a.txt", "../a.txt", "/a.txt"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"text"))
    fragments = [part and part.fragment for part in read("tar", buffer.getvalue())]
    assert fragments == ["member=a.txt", None, "member=../a.txt", "member=/a.txt"]


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_of_a_zip_costs_no_other(method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        made.writestr("a.txt", "a line\n" * 1000)
        made.writestr("b.txt", "text")
    data = bytearray(buffer.getvalue())
    data[40:60] = b"\xff" * 20  # what follows the first header of 30 bytes and its name
    first, second = read("zip", bytes(data))
    assert first is None
    assert second is not None
