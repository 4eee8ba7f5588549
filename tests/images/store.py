"""A store of images of a test's own, the scripts that fill it, and containers that run from it.

A container runs as `buildah run` does without a runtime, in chroot isolation; its root is made
read-only by a mount that only it sees. Everything is removed in the end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
BUILD_S = 900
READY_S = 120
END_S = 60
# Reaches what is lent to the builder; it must not be found in any layer.
CANARY = "canary-b7f1c0de"
# buildah removes what it mounted at /run/.containerenv, which a read-only /run would refuse.
READ_ONLY_RUN = """
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
mount -t tmpfs -o mode=755 tmpfs "$1/run"
shift
exec buildah run "$@"
"""
PROCESS_ONE = """
root=$1 data=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$data" "$root/data"
exec env --ignore-environment HOME=/data ORT_DISABLE_TELEMETRY=1 \\
    "$(command -v chroot)" --userspec=10001:10001 "$root" sh -c 'cd /data && exec "$@"' sh "$@"
"""


class Store:
    """Images and containers below a folder.

    Args:
        folder: made if absent.
        driver: how layers are kept.
        user: whose store it is; None for one's own.
    """

    def __init__(self, folder: Path, driver: str, user: str | None = None) -> None:
        self.folder = folder
        self.output = folder / "output"
        self._as_user = ["runuser", "--user", user, "--"] if user else []
        made = [folder, self.output, folder / "home", folder / "run", folder / "tmp"]
        for one in made:
            one.mkdir()
        settings = folder / "storage.conf"
        settings.write_text(
            "[storage]\n"
            f'driver = "{driver}"\n'
            f'graphroot = "{folder / "root"}"\n'
            f'rootless_storage_path = "{folder / "root"}"\n'
            f'runroot = "{folder / "run"}"\n'
        )
        if user:
            for one in made:
                shutil.chown(one, user, user)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLUICE_", "STORAGE_", "XDG_", "UV_CACHE"))
        }
        self.environ = inherited | {
            "CONTAINERS_STORAGE_CONF": str(settings),
            "BUILDAH_ISOLATION": "chroot",
            "HOME": str(folder / "home"),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "TMPDIR": str(folder / "tmp"),
            "OUTPUT": str(self.output),
            "UV_INDEX_CANARY_PASSWORD": CANARY,
        }

    def run(self, *command: str | Path, **variables: str) -> str:
        done = subprocess.run(
            [*self._as_user, *command],
            env=self.environ | variables,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-8_000:]
        return str(done.stdout).strip()

    def build(self, *images: str, **variables: str) -> str:
        return self.run(ROOT / "buildah" / "build.sh", *images, **variables)

    def name(self, image: str) -> str:
        [name] = re.findall(
            rf"^(\S+/sluice-{image}:\S+)$",
            self.run("buildah", "images", "--format", "{{.Name}}:{{.Tag}}"),
            re.MULTILINE,
        )
        return name

    def config(self, image: str) -> dict[str, Any]:
        """The OCI configuration of an image."""
        shown = self.run("buildah", "inspect", "--type", "image", self.name(image))
        config: dict[str, Any] = json.loads(shown)["OCIv1"]
        return config

    def layers(self, image: str) -> list[str]:
        """Digests of the unpacked layers, the lowest first."""
        return list(self.config(image)["rootfs"]["diff_ids"])

    def unpacked(self, image: str) -> Path:
        """The image as a folder in OCI layout, its layers not compressed."""
        folder = self.folder / f"unpacked-{image}"
        if not folder.exists():
            self.run("buildah", "push", "--quiet", "-D", self.name(image), f"oci:{folder}")
        return folder

    @property
    def containers(self) -> str:
        return self.run("buildah", "containers", "--quiet", "--all")

    @contextmanager
    def mounted(self, image: str) -> Iterator[tuple[str, Path]]:
        """A container of an image, by name, and the folder where its root is."""
        name = self.run("buildah", "from", self.name(image))
        try:
            yield name, Path(self.run("buildah", "mount", name))
        finally:
            self.run("buildah", "rm", name)

    @contextmanager
    def running(
        self, image: str, *arguments: str, data: Path, configuration: Path | None = None
    ) -> Iterator[Running]:
        """Run sluice in a container, with its image's arguments where none are given."""
        os.chown(data, 10001, 10001)
        config = self.config(image)["config"]
        volumes = [f"--volume={data}:/data"]
        if configuration:
            volumes.append(f"--volume={configuration}:/etc/sluice:ro")
        with self.mounted(image) as (name, root):
            command = [*config["Entrypoint"], *(arguments or config["Cmd"])]
            script = ["unshare", "--mount", "sh", "-ec", READ_ONLY_RUN, "sh", str(root)]
            with self._running([*script, *volumes, name, "--", *command]) as running:
                yield running

    @contextmanager
    def process_one(self, image: str, *arguments: str, data: Path) -> Iterator[Running]:
        """Run sluice as the first process of a process namespace."""
        os.chown(data, 10001, 10001)
        with self.mounted(image) as (_, root):
            command = [*self.config(image)["config"]["Entrypoint"], *arguments]
            apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
            script = [*apart, "sh", "-ec", PROCESS_ONE, "sh", str(root), str(data)]
            with self._running([*script, *command]) as running:
                yield running

    @contextmanager
    def _running(self, command: list[str]) -> Iterator[Running]:
        log = self.folder / f"{len(list(self.folder.glob('*.log')))}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(command, env=self.environ, stdout=errors, stderr=errors)
        running = Running(process, log)
        try:
            yield running
        finally:
            running.kill()

    def clear(self) -> None:
        """Remove all of it."""
        self.run("buildah", "rm", "--all")
        self.run("buildah", "rmi", "--all", "--force")
        overlay = self.folder / "root" / "overlay"
        if overlay.is_mount():
            self.run("umount", overlay)
        shutil.rmtree(self.folder)


class Running:
    """Sluice in a container."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def wait_until_ready(self) -> str:
        """The address where it takes requests."""
        deadline = time.monotonic() + READY_S
        while not (found := re.search(r"is ready on (\S+)\n", self._log.read_text())):
            assert self._process.poll() is None, self._log.read_text()[-4_000:]
            assert time.monotonic() < deadline, self._log.read_text()[-4_000:]
            time.sleep(0.05)  # a line of a log cannot be awaited
        return found[1]

    @property
    def pid(self) -> int:
        """Of sluice itself, seen from outside."""
        [found] = [
            pid
            for pid in _descendants(self._process.pid)
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/opt/sluice/bin/python")
        ]
        return found

    def status(self, field: str) -> list[str]:
        text = Path(f"/proc/{self.pid}/status").read_text()
        [line] = re.findall(rf"^{field}:\s*(.*)$", text, re.MULTILINE)
        return str(line).split()

    @property
    def root_options(self) -> list[str]:
        """Of the mount that is its root."""
        lines = Path(f"/proc/{self.pid}/mounts").read_text().splitlines()
        return [line.split()[3].split(",") for line in lines if line.split()[1] == "/"][-1]

    def drain(self) -> int:
        """Send SIGTERM to sluice; the exit code that comes out."""
        os.kill(self.pid, signal.SIGTERM)
        return self._process.wait(END_S)

    def kill(self) -> None:
        if self._process.poll() is None:
            for pid in _descendants(self._process.pid):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(END_S)

    def log(self) -> str:
        return self._log.read_text()


def _descendants(pid: int) -> list[int]:
    """Children, theirs first; a process may have some of each of its threads."""
    children = {
        int(child)
        for file in Path(f"/proc/{pid}/task").glob("*/children")
        for child in file.read_text().split()
    }
    return [one for child in sorted(children) for one in (*_descendants(child), child)]
