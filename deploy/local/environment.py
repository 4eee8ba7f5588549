"""The virtual environment whose programs the cluster runs: made of the built wheel, or a given one.

What the wheel needs is installed by the hashes of the lock file, and nothing else: no resolver
chooses anything here. An environment that fits the wheel and the lock is left as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from deploy.local.member import ClusterError

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "dev.txt"
INSTALL_S = 1_200
_STAMP = ".sluice-wheel"


class Environment:
    """The programs of one virtual environment.

    Args:
        python: its interpreter.

    Raises:
        ClusterError: it has no ``sluice``.
    """

    def __init__(self, python: Path) -> None:
        # Not resolved: the link's place says which environment it is.
        self.python = python.absolute()
        self.folder = self.python.parent
        if not (self.folder / "sluice").is_file():
            raise ClusterError(f"{self.folder} has no sluice; install the wheel there")

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self.folder / name)

    def etcd(self) -> str:
        """The program that the variable ETCD names, else the one on PATH, else the environment's.

        Raises:
            ClusterError: there is none.
        """
        found = os.environ.get("ETCD") or shutil.which("etcd") or shutil.which(self.program("etcd"))
        if not found:
            raise ClusterError("no etcd here; install etcd-server, or name one in ETCD")
        return found


def installed(folder: Path, wheel: Path | None = None) -> Environment:
    """The environment in a folder with the built wheel and what it needs; made if need be.

    Raises:
        ClusterError: there is no wheel, or it could not be installed.
    """
    wheel = wheel or _built()
    python = folder / "bin" / "python"
    wanted = hashlib.sha256(wheel.read_bytes() + LOCK.read_bytes()).hexdigest()
    stamp = folder / _STAMP
    if not stamp.is_file() or stamp.read_text(encoding="ascii") != wanted:
        print(f"Installing {wheel.name} in {folder} …", flush=True)  # noqa: T201  # a program's output
        venv.create(folder, clear=True, with_pip=True)
        for what in (("--require-hashes", "-r", str(LOCK)), ("--no-deps", str(wheel))):
            _install(python, what)
        stamp.write_text(wanted, encoding="ascii")
    _run([str(python.with_name("sluice")), "models", "fetch"])
    return Environment(python)


def _built() -> Path:
    """The wheel that was built last."""
    wheels = (ROOT / "dist").glob("sluice-*.whl")
    newest = max(wheels, key=lambda wheel: wheel.stat().st_mtime, default=None)
    if newest is None:
        raise ClusterError("dist/ has no wheel; run `make wheel`, or give --python")
    return newest


def _install(python: Path, what: tuple[str, ...]) -> None:
    uv = os.environ.get("UV") or shutil.which("uv")
    installer = [uv, "pip", "install", "--quiet", "--python", str(python)]
    if uv is None:
        installer = [str(python), "-m", "pip", "install", "--quiet"]
    _run([*(word for word in installer if word), *what])


def _run(command: list[str]) -> None:
    # nltk refuses its own files where they are hard links.
    environ = {"UV_LINK_MODE": "copy", **os.environ}
    try:
        subprocess.run(command, env=environ, stdout=sys.stderr, timeout=INSTALL_S, check=True)  # noqa: S603  # our own words
    except (OSError, subprocess.SubprocessError) as error:
        raise ClusterError(f"the environment could not be made: {error}") from None
