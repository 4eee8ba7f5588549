"""The image scripts on tools that only record: the order of calls, and what a failure leaves."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAKE_TOOL = Path(__file__).with_name("fake_tool.sh")
TOOLS = {
    "BUILDAH": "buildah",
    "MMDEBSTRAP": "mmdebstrap",
    "APT_GET": "apt-get",
    "APT_CONFIG_DUMP": "apt-config",
    "PYTHON": "python",
    "MV": "mv",
}
# Their failure is an answer: no base yet, nothing configured.
ASKED = re.compile(
    r"buildah inspect --type image|apt-config dump|python -m pip config|apt-get indextargets"
)
CLEANING = re.compile(r"buildah (rm |inspect --type container)")
BASE = "debootstrap bookworm"
WAIT_S = 30


class Workshop:
    """Tools that only record, and the folders that the scripts work in."""

    def __init__(self, folder: Path) -> None:
        self.fake = folder / "fake"
        self.output = folder / "output"
        self.scratch = folder / "scratch"
        tools = folder / "tools"
        for made in (self.fake / "containers", self.fake / "images", tools, self.scratch):
            made.mkdir(parents=True)
        (self.fake / "calls").touch()
        for tool in TOOLS.values():
            shutil.copy(FAKE_TOOL, tools / tool)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "UV_", "SLUICE_"))
        }
        self.environ = inherited | {
            **{variable: str(tools / tool) for variable, tool in TOOLS.items()},
            "FAKE": str(self.fake),
            "FAKE_BASE": BASE,
            "TMPDIR": str(self.scratch),
            "OUTPUT": str(self.output),
            "REVISION": "0" * 40,
            "SOURCE_DATE_EPOCH": "1700000000",
        }

    def begin(self, script: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [ROOT / "buildah" / script, *arguments],
            env=self.environ | variables,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )

    def run(self, script: str, *arguments: str, **variables: str) -> tuple[int, str]:
        with self.begin(script, *arguments, **variables) as process:
            _, errors = process.communicate(timeout=WAIT_S)
        return process.returncode, errors

    @property
    def calls(self) -> list[str]:
        return (self.fake / "calls").read_text().splitlines()

    @property
    def images(self) -> set[str]:
        return {file.name for file in (self.fake / "images").iterdir()}

    @property
    def left_behind(self) -> list[Path]:
        return [*(self.fake / "containers").iterdir(), *self.scratch.iterdir()]


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def positions(calls: list[str], *patterns: str) -> list[int]:
    """Where each of these first stands in the record."""
    return [next(i for i, call in enumerate(calls) if re.search(one, call)) for one in patterns]


def test_all_images_share_one_base_and_one_builder(workshop):
    status, errors = workshop.run("build.sh")
    assert status == 0, errors
    assert workshop.images == {
        f"sluice-{image}:0.1.0" for image in ("base", "ingestor", "indexer", "query", "all-in-one")
    }
    calls = workshop.calls
    assert sum("mmdebstrap" in call for call in calls) == 1
    assert sum("in_builder.sh wheel" in call for call in calls) == 1
    assert workshop.left_behind == []


def test_an_image_is_described_and_judged_before_it_is_made(workshop):
    status, errors = workshop.run("build.sh", "query")
    assert status == 0, errors
    order = positions(
        workshop.calls,
        "^mmdebstrap .*--variant=essential",
        "^buildah add .*base.tar / $",
        "^buildah commit .*sluice-base:",
        "in_builder.sh tools",
        "in_builder.sh wheel",
        "in_builder.sh model",
        "in_builder.sh environment query yes",
        "^buildah from .*sluice-query-",
        "^buildah copy .*--from sluice-builder-.* /opt/sluice /opt/sluice",
        "^buildah config --entrypoint",
        "^buildah config --label org.opencontainers.image.title=sluice-query",
        "in_builder.sh report query",
        r"python -B -I - query 450",
        "^buildah commit .*--timestamp 1700000000 .*sluice-query:",
        "^mv ",
        "^buildah rm sluice-builder-",
    )
    assert order == sorted(order)


def test_a_base_of_the_same_kind_is_used_again(workshop):
    assert workshop.run("build.sh", "base")[0] == 0
    first = len(workshop.calls)
    assert workshop.run("build.sh", "query")[0] == 0
    assert not any("mmdebstrap" in call for call in workshop.calls[first:])
    again = len(workshop.calls)
    assert workshop.run("build.sh", "query", BASE="x@sha256:1")[0] == 0
    assert any("from --quiet" in call and "x@sha256:1" in call for call in workshop.calls[again:])


def test_no_address_of_an_index_stands_in_a_call(workshop):
    """What is in a call can be in a layer's history, and in the list of processes."""
    address = "https://somebody:hush-hush@index.example/simple"
    status, errors = workshop.run("build.sh", PIP_INDEX_URL=address, UV_EXTRA_INDEX_URL=address)
    assert status == 0, errors
    assert "hush-hush" not in (workshop.fake / "calls").read_text() + errors


@pytest.mark.timeout(300)
@pytest.mark.parametrize("image", ["query", "ingestor"])
def test_a_failure_at_any_step_leaves_nothing_behind(tmp_path, image):
    whole = Workshop(tmp_path / "whole")
    assert whole.run("build.sh", image)[0] == 0
    calls = list(enumerate(whole.calls, start=1))
    if image == "ingestor":  # what it does as the other does it is tried there
        [first] = positions(whole.calls, "in_builder.sh environment")
        calls = calls[first:]
    steps = [n for n, call in calls if not CLEANING.match(call) and not ASKED.match(call)]
    assert len(steps) > 10
    # the last prints the table, and comes when the image is whole
    for number in steps[:-1]:
        broken = Workshop(tmp_path / str(number))
        status, errors = broken.run("build.sh", image, FAIL_AT=str(number))
        call = whole.calls[number - 1]
        assert status != 0, call
        assert broken.left_behind == [], f"{call}\n{errors}"
        if not call.startswith("mv "):
            assert f"sluice-{image}:0.1.0" not in broken.images, call
            assert list(broken.output.iterdir()) == [], call


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("at", ["mmdebstrap", "buildah from .*builder", "in_builder.sh wheel"])
def test_a_signal_ends_the_running_step_and_cleans_up(tmp_path, number, at):
    whole = Workshop(tmp_path / "whole")
    assert whole.run("build.sh", "query")[0] == 0
    [step] = positions(whole.calls, at)
    workshop = Workshop(tmp_path / "signalled")
    process = workshop.begin("build.sh", "query", BLOCK_AT=str(step + 1))
    blocked = workshop.fake / "blocked"
    deadline = time.monotonic() + WAIT_S
    while not (blocked.exists() and blocked.read_text().strip()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)  # a file cannot be awaited
    process.send_signal(number)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 128 + number, errors
    assert workshop.left_behind == []
    assert not Path(f"/proc/{blocked.read_text().strip()}").exists()


@pytest.mark.parametrize("base", ["debian", "debian:bookworm", "docker.io/library/python:3.11"])
def test_a_base_without_a_digest_is_refused(workshop, base):
    status, errors = workshop.run("build.sh", "base", BASE=base)
    assert status == 1
    assert "NAME@sha256:" in errors
    assert workshop.images == set()
    assert workshop.left_behind == []


def test_an_image_that_does_not_exist_is_refused_before_anything_is_built(workshop):
    status, errors = workshop.run("build.sh", "query", "querry")
    assert status == 1
    assert "querry" in errors
    assert workshop.calls == []


def test_docker_format_has_a_health_check_and_oci_has_none(workshop):
    assert workshop.run("build.sh", "query")[0] == 0
    assert not any("--healthcheck" in call for call in workshop.calls)
    assert workshop.run("build.sh", "query", FORMAT="docker")[0] == 0
    [call] = [call for call in workshop.calls if "--healthcheck " in call]
    assert "CMD /opt/sluice/bin/sluice health 127.0.0.1:50052" in call


def test_push_names_the_target_by_image_and_tag(workshop, tmp_path):
    file = tmp_path / "archives" / "sluice-query-0.1.0.tar"
    status, errors = workshop.run("push.sh", "query", DESTINATION=f"oci-archive:{file.parent}")
    assert status == 0, errors
    registry = "docker://registry.example/team"
    assert workshop.run("push.sh", "query", "indexer", DESTINATION=registry, TAG="7")[0] == 0
    assert workshop.calls == [
        f"buildah push --quiet localhost/sluice-query:0.1.0 oci-archive:{file} ",
        f"buildah push --quiet localhost/sluice-query:7 {registry}/sluice-query:7 ",
        f"buildah push --quiet localhost/sluice-indexer:7 {registry}/sluice-indexer:7 ",
    ]
    assert workshop.left_behind == []


@pytest.mark.parametrize("destination", ["", "registry.example/team", "dir:/tmp", "docker://"])
def test_push_refuses_a_destination_of_another_kind(workshop, destination):
    status, errors = workshop.run("push.sh", "query", DESTINATION=destination)
    assert status == 1
    assert "DESTINATION" in errors
    assert workshop.calls == []
