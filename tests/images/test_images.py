"""The images, built for real, and what an operator may rely on.

They answer over gRPC from outside, as a user without rights, on a root that nobody can write; they
hold nothing that is not needed; a second build of the same sources gives the same layers.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import mmap
import os
import re
import shutil
import subprocess
import tarfile
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import yaml

from client.answers import SearchQuery
from client.client import SluiceClient
from tests.cluster import running_cluster
from tests.images.store import CANARY, ROOT, Store
from tests.installation import SLUICE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A build of everything from nothing takes minutes.
pytestmark = pytest.mark.timeout(900)

NEEDED = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "unshare": "util-linux"}
NEEDED_ROOTLESS = {"newuidmap": "uidmap"}
COMMAND_S = 240
ROOTLESS_USER = os.environ.get("ROOTLESS_USER")
# The order of files in a layer is the driver's, and of an ordinary user's overlay the kernel's
# marks get into it: what the two build is compared with the plain one.
DRIVER = "vfs" if ROOTLESS_USER else "overlay"
QUESTION = "how do I replace a failed NameNode"
IMAGES = ("query", "all-in-one")
COMPILERS_AND_INSTALLERS = re.compile(
    r"(^|/)bin/(gcc|cc|g\+\+|clang|zig|ld|as|make|cmake|pip3?|uv|apt|apt-get)$"
    r"|/site-packages/(pip|ziglang|uv|hatchling|setuptools|pytest|bench|tests)/"
    r"|\.deb$|^var/lib/apt/lists/.|^var/cache/apt/.*\.bin$|^src/|/(docs|samples)/.*\.md$"
)
SECRET_FILES = re.compile(
    r"\.(keytab|key|p12|pfx|jks)$|(^|/)(id_(rsa|ed25519)|\.netrc|\.pypirc|pip\.conf|uv\.toml"
    r"|auth\.json|sources\.list|krb5cc_\w+)$"
)
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}")


def require(needed: dict[str, str]) -> None:
    """Skip what cannot run here, and say what would cure it; in CI that is a failure."""
    missing = sorted({package for tool, package in needed.items() if not shutil.which(tool)})
    reason = f"apt-get install {' '.join(missing)}" if missing else ""
    if os.geteuid() != 0:
        reason = "run as root: a root file system is mounted read-only"
    if not reason:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"the images cannot be tested: {reason}")
    pytest.skip(f"the images cannot be tested: {reason}")


def kept_wheels() -> dict[str, str]:
    """The cache of this machine's uv, so that nothing is downloaded twice."""
    uv = ROOT / ".venv/bin/uv"
    if not uv.exists():
        return {}
    found = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True)
    return {"UV_CACHE": found.stdout.strip()}


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Iterator[Store]:
    """Query and all-in-one on their base, built once."""
    require(NEEDED)
    made = Store(tmp_path_factory.mktemp("images") / "store", DRIVER)
    try:
        made.build(*IMAGES, **kept_wheels())
        yield made
    finally:
        made.clear()


@pytest.fixture(scope="session")
def second(tmp_path_factory) -> Iterator[Store]:
    """The query image, built anew from nothing; by an ordinary user where there is one."""
    require(NEEDED)
    folder = tmp_path_factory.mktemp("second")
    if ROOTLESS_USER:
        require(NEEDED_ROOTLESS)
        for above in (folder, *folder.parents[:-2]):
            above.chmod(above.stat().st_mode | 0o011)  # to pass through
    made = Store(folder / "store", DRIVER, ROOTLESS_USER)
    try:
        made.build("query", **({} if ROOTLESS_USER else kept_wheels()), VULNERABILITIES="skip")
        yield made
    finally:
        made.clear()


def sluice(*arguments: str, target: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the client, outside of any container."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    own |= {"SLUICE_CLIENT__TARGET": target, "SLUICE_INGEST__STATE_URI": str(home / "state")}
    done = subprocess.run(
        [*SLUICE, *arguments],
        env=own,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    return done


def first_hit(address: str) -> str:
    """Ask over gRPC; the source of what comes first."""

    async def ask() -> str:
        async with SluiceClient(address) as client:
            answer = await client.search(SearchQuery(QUESTION, "docs"))
            return answer.hits[0].source_uri

    return asyncio.run(ask())


def test_all_in_one_answers_from_outside(store, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    arguments = ("up", "--data-dir", "/data", "--listen", "127.0.0.1:0")
    with store.running("all-in-one", *arguments, data=data) as running:
        address = running.wait_until_ready()
        assert running.status("Uid") == ["10001"] * 4
        assert running.status("Gid") == ["10001"] * 4
        assert "ro" in running.root_options
        sluice(
            "ingest",
            str(ROOT / "samples" / "runbooks"),
            "--collection",
            "docs",
            target=address,
            home=tmp_path,
        )
        assert "namenode" in first_hit(address).lower()
        sluice("health", address, target=address, home=tmp_path)
        assert running.drain() == 0, running.log()
    assert store.containers == ""


def test_query_answers_from_outside(store, tmp_path):
    """With etcd, Chroma and an indexer beside it, which embeds with the model of this machine."""
    data, configuration = tmp_path / "data", tmp_path / "etc"
    data.mkdir()
    configuration.mkdir()
    with running_cluster(tmp_path, "indexer", environ={}) as cluster:
        [indexer] = cluster.named("indexer")
        sluice(
            "ingest",
            str(ROOT / "samples" / "runbooks"),
            "--collection",
            "docs",
            target=indexer.address,
            home=tmp_path,
        )
        settings = cluster.settings | {"query": {"server": {"listen": "127.0.0.1:0"}}}
        (configuration / "sluice.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(settings))))
        with store.running("query", data=data, configuration=configuration) as running:
            address = running.wait_until_ready()
            assert running.status("Uid") == ["10001"] * 4
            assert "ro" in running.root_options
            assert "namenode" in first_hit(address).lower()
            assert running.drain() == 0, running.log()
    assert [file for file in data.rglob("*") if file.is_file()] == [], "it keeps nothing"


def test_sigterm_ends_process_one(store, tmp_path):
    """The first process of a namespace is not ended by a signal that it does not handle."""
    arguments = ("up", "--data-dir", "/data", "--listen", "127.0.0.1:0")
    with store.process_one("all-in-one", *arguments, data=tmp_path) as running:
        running.wait_until_ready()
        assert running.status("NSpid")[-1] == "1"
        assert running.drain() == 0, running.log()


@pytest.fixture(scope="session", params=IMAGES)
def unpacked(request, store) -> SimpleNamespace:
    """An image as it is sent on: its description, its blobs, and the files of its layers."""
    folder = store.unpacked(request.param)
    [named] = json.loads((folder / "index.json").read_text())["manifests"]
    blobs = folder / "blobs" / "sha256"

    def blob(digest: str) -> Path:
        return blobs / digest.removeprefix("sha256:")

    manifest = json.loads(blob(named["digest"]).read_text())
    files = set()
    for layer in manifest["layers"]:
        with tarfile.open(blob(layer["digest"])) as archive:
            files |= {name.removeprefix("./") for name in archive.getnames()}
    return SimpleNamespace(
        image=request.param,
        manifest=manifest,
        config=json.loads(blob(manifest["config"]["digest"]).read_text()),
        blobs=sorted(blobs.iterdir()),
        files=files,
    )


def test_an_image_says_what_it_is(unpacked):
    revision = subprocess.run(
        [shutil.which("git") or "git", "-C", ROOT, "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    said = unpacked.manifest["annotations"]
    assert said["org.opencontainers.image.title"] == f"sluice-{unpacked.image}"
    assert said["org.opencontainers.image.version"] == "0.1.0"
    assert said["org.opencontainers.image.revision"].removesuffix("-modified") == revision
    assert said["org.opencontainers.image.licenses"] == "NOASSERTION"
    labels = unpacked.config["config"]["Labels"]
    own = {name: value for name, value in said.items() if ".base." not in name}
    assert len(own) == 6
    assert own.items() <= labels.items()
    assert unpacked.config["created"].startswith(said["org.opencontainers.image.created"][:-1])


def test_an_image_runs_without_rights_and_keeps_data_in_one_place(unpacked):
    config = unpacked.config["config"]
    assert config["User"] == "10001:10001"
    assert config["Volumes"] == {"/data": {}}
    assert config["Entrypoint"] == ["/opt/sluice/bin/sluice"]
    assert {name.partition("=")[0] for name in config["Env"]} == {
        "HOME",
        "ORT_DISABLE_TELEMETRY",
        "PATH",
        "PYTHONUNBUFFERED",
    }
    commands = {
        "query": "serve query --config /etc/sluice/sluice.yaml",
        "all-in-one": "up --data-dir /data --listen 0.0.0.0:50051",
    }
    assert config["Cmd"] == commands[unpacked.image].split()
    ports = {"query": {"9464/tcp", "50052/tcp"}, "all-in-one": {"9464/tcp", "50051/tcp"}}
    assert config["ExposedPorts"].keys() == ports[unpacked.image]


def test_no_layer_holds_a_secret_or_a_way_to_an_index(unpacked):
    assert [name for name in unpacked.files if SECRET_FILES.search(name)] == []
    own = [
        value.encode()
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "UV_")) and "://" in value
    ]
    for file in unpacked.blobs:
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as bytes_,
        ):
            for needle in (CANARY.encode(), *own):
                assert bytes_.find(needle) == -1, (file, needle)
            assert PRIVATE_KEY.search(bytes_) is None, file


def test_no_layer_holds_a_compiler_or_an_installer(unpacked):
    assert [name for name in unpacked.files if COMPILERS_AND_INSTALLERS.search(name)] == []


def test_the_bills_of_materials_name_what_is_inside(unpacked, store):
    def named(kind: str) -> set[tuple[str, str]]:
        bill = json.loads((store.output / f"{unpacked.image}.{kind}.cdx.json").read_text())
        assert bill["bomFormat"] == "CycloneDX"
        return {
            (one["name"].lower().replace("_", "-"), one["version"]) for one in bill["components"]
        }

    installed = {
        (found[1].lower().replace("_", "-").replace(".", "-"), found[2])
        for name in unpacked.files
        if (found := re.search(r"/site-packages/([^/]+)-([^/-]+)\.dist-info/METADATA$", name))
    }
    assert len(installed) > 50
    python = {(name.replace(".", "-"), version) for name, version in named("python")}
    assert python == installed
    debian = {name for name, _ in named("debian")}
    copyrights = {
        found[1]
        for name in unpacked.files
        if (found := re.fullmatch(r"usr/share/doc/([^/]+)/copyright", name))
    }
    assert copyrights <= debian
    with (store.output / f"{unpacked.image}.licences.csv").open() as report:
        licences = {row["Name"]: row["License"] for row in csv.DictReader(report)}
    assert licences["chromadb"] == "Apache Software License"
    assert "GPL-3.0-or-later" in licences["Debian: coreutils"]
    checked = json.loads((store.output / f"{unpacked.image}.vulnerabilities.json").read_text())
    assert checked.get("checked") is False or len(checked["dependencies"]) >= len(installed)


def test_sizes_are_counted_and_bounded(store):
    sizes = json.loads((store.output / "query.sizes.json").read_text())
    assert sizes["bytes"] == sum(sizes["parts"].values())
    assert sizes["parts"]["model"] > 50_000_000
    assert sizes["bytes"] <= sizes["bound_bytes"] == 450_000_000


def contents(folder: Path) -> set[tuple[object, ...]]:
    """Every file of an image in OCI layout: its layer's place, name, mode, owners and digest."""
    [named] = json.loads((folder / "index.json").read_text())["manifests"]
    blobs = folder / "blobs"
    manifest = json.loads((blobs / named["digest"].replace(":", "/")).read_text())
    found: set[tuple[object, ...]] = set()
    for place, layer in enumerate(manifest["layers"]):
        with tarfile.open(blobs / layer["digest"].replace(":", "/")) as archive:
            for file in archive:
                opened = archive.extractfile(file) if file.isreg() else None
                digest = hashlib.file_digest(opened, "sha256").hexdigest() if opened else ""
                found.add((place, file.name, oct(file.mode), file.uid, file.gid, digest))
    return found


def test_a_second_build_gives_the_same_layers(store, second):
    again, first = second.layers("query"), store.layers("query")
    assert len(first) == 2
    if again != first:
        different = contents(second.unpacked("query")) ^ contents(store.unpacked("query"))
        pytest.fail(f"other layers, base and Sluice: {again}, not {first}: {sorted(different)}")
    assert second.containers == ""
    assert list((second.folder / "tmp").glob("sluice-images.*")) == []


def test_an_image_that_is_sent_to_a_folder_comes_back_the_same(store, tmp_path):
    store.run(ROOT / "buildah" / "push.sh", "base", DESTINATION=f"oci-archive:{tmp_path}")
    [archive] = tmp_path.iterdir()
    pulled = store.run("buildah", "pull", "--quiet", f"oci-archive:{archive}")
    known = store.run("buildah", "images", "--quiet", "--no-trunc", store.name("base"))
    assert pulled in known
