"""A real HDFS for tests: name nodes and a data node in one Java process on loopback ports.

The Java side lies in cluster/. It is compiled by Maven once and kept in cluster/target; later
starts need neither Maven nor a network. It ends with this process at the latest: it never outlives
the pipe to its standard input.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import shutil
import subprocess
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Mode = Literal["plain", "ha", "kerberos"]

_PROJECT = Path(__file__).parent / "cluster"
_CLASS_PATH = _PROJECT / "target" / "classpath"
_BUILD_S = 600
_READY_S = 60
_ANSWER_S = 60
_STOP_S = 10
_LOGIN_S = 20
_QUOTED_CHARS = 3_000
_JAVA_OPTIONS = (
    "-Xmx512m",
    # fewer threads and a quicker start than the defaults
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.net.preferIPv4Stack=true",
)


class MissingToolError(RuntimeError):
    """A program that the cluster needs is not installed; the message says which package has it."""


class MiniDfs:
    """A running cluster.

    Its superuser is ``hdfs``; any other user may write into the root folder. ``command`` is safe
    from one thread at a time.

    Attributes:
        uri: hdfs://127.0.0.1:PORT, or hdfs://minicluster of two name nodes.
        conf_dir: holds core-site.xml and hdfs-site.xml for clients.
        http_address: HOST:PORT of the first name node's web server (webhdfs).
        audit_log: one line an operation of all name nodes.
        krb5_conf, keytab, principal: an ordinary user's, in mode kerberos only.
    """

    def __init__(
        self, folder: Path, process: subprocess.Popen[str], answers: queue.Queue[str]
    ) -> None:
        self._folder = folder
        self._process = process
        self._answers = answers
        _, self.uri, self.http_address = self._answer(_READY_S, "ready").split(" ")
        self.conf_dir = folder / "conf"
        self.audit_log = folder / "audit.log"
        self.krb5_conf = folder / "krb5.conf"
        self.keytab = folder / "sluice.keytab"
        self.principal = "sluice@EXAMPLE.COM"

    @property
    def environ(self) -> dict[str, str]:
        """The variables by which a client finds the cluster, without credentials."""
        kerberos = {"KRB5_CONFIG": str(self.krb5_conf)} if self.krb5_conf.exists() else {}
        return {"HADOOP_CONF_DIR": str(self.conf_dir)} | kerberos

    def command(self, *words: str) -> str:
        """Have the cluster do something and return its answer, which may be empty.

        ``active`` (the index of the active name node), ``failover`` (its new index),
        ``kill-namenode N``, ``restart-namenode N`` (a standby afterwards in mode ha),
        ``kill-datanodes``, ``restart-datanodes``, ``chmod OCTAL PATH``, ``chown USER GROUP PATH``;
        in mode kerberos ``add-principal NAME KEYTAB``.

        Raises:
            RuntimeError: the cluster could not, or did not answer in time and was ended; in that
                case the message quotes its logs.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then it has ended, as the answer will say
            self._process.stdin.write(" ".join(words) + "\n")
            self._process.stdin.flush()
        return self._answer(_ANSWER_S, "ok").removeprefix("ok").strip()

    def login(self, cache: Path, *, lifetime_s: int | None = None) -> dict[str, str]:
        """Fetch a ticket of the ordinary user into a cache by kinit, and name it to clients."""
        lifetime = [] if lifetime_s is None else ["-l", f"{lifetime_s}s"]
        command = [_tool("kinit", "krb5-user"), "-c", str(cache), *lifetime]
        subprocess.run(
            [*command, "-k", "-t", str(self.keytab), self.principal],
            env={**os.environ, "KRB5_CONFIG": str(self.krb5_conf)},
            check=True,
            capture_output=True,
            timeout=_LOGIN_S,
        )
        return self.environ | {"KRB5CCNAME": f"FILE:{cache}"}

    def _answer(self, timeout_s: int, wanted: str) -> str:
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            self._process.kill()  # a late answer would be taken for the next command's
            raise RuntimeError(
                f"HDFS did not answer in {timeout_s} s\n{_logs(self._folder)}"
            ) from None
        if not line:
            raise RuntimeError(f"HDFS ended\n{_logs(self._folder)}")
        if not line.startswith(wanted):
            raise RuntimeError(f"HDFS answered: {line}")
        return line


@contextlib.contextmanager
def mini_dfs(mode: Mode, folder: Path) -> Iterator[MiniDfs]:
    """Run a cluster while the block runs; everything it writes goes into the folder.

    Args:
        mode: one name node, two of which one is active, or one that asks for Kerberos tickets.
        folder: made if absent.

    Raises:
        MissingToolError: Java, kinit in mode kerberos, or Maven for the first start is not
            installed.
        RuntimeError: it does not start; the message quotes its logs.
    """
    if mode == "kerberos":
        _tool("kinit", "krb5-user")  # before anything starts: nobody gets in without it
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        _java(),
        *_JAVA_OPTIONS,
        f"-Dminidfs.folder={folder}",
        f"-Djava.io.tmpdir={folder}",  # what its web servers leave there
        "-cp",
        _built_class_path(),
        "minidfs.Main",
        mode,
        str(folder),
    ]
    with (
        (folder / "stderr.log").open("wb") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "HADOOP_USER_NAME": "hdfs"},
        ) as process,
    ):
        answers: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=_pass_on, args=(process.stdout, answers))
        reader.start()
        try:
            yield MiniDfs(folder, process, answers)
        finally:
            _end(process)
            reader.join()


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _pass_on(stream: IO[str], lines: queue.Queue[str]) -> None:
    """Put what it prints into the queue, line by line, and an empty line once it has ended."""
    for line in stream:
        lines.put(line.strip())
    lines.put("")


def _logs(folder: Path) -> str:
    logs = [folder / "stderr.log", folder / "hadoop.log"]
    return "\n".join(
        f"{log.name}:\n{log.read_text(errors='replace')[-_QUOTED_CHARS:]}"
        for log in logs
        if log.exists()
    )


def _built_class_path() -> str:
    """Compile what has changed; one process at a time does."""
    with (_PROJECT / "pom.xml").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_built():
            _build()
    return f"{_PROJECT / 'target' / 'classes'}:{_CLASS_PATH.read_text()}"


def _is_built() -> bool:
    if not _CLASS_PATH.exists():
        return False
    built = _CLASS_PATH.stat().st_mtime
    sources = [_PROJECT / "pom.xml", *(_PROJECT / "src").rglob("*.*")]
    jars = _CLASS_PATH.read_text().split(":")
    return all(source.stat().st_mtime <= built for source in sources) and all(
        Path(jar).exists() for jar in jars
    )


def _build() -> None:
    goals = ["compile", "dependency:build-classpath"]
    command = [_tool("mvn", "maven"), "-q", "-B", "-f", str(_PROJECT / "pom.xml"), *goals]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_BUILD_S)
    if done.returncode != 0:
        output = (done.stdout + done.stderr)[-_QUOTED_CHARS:]
        raise RuntimeError(f"Maven could not build {_PROJECT}:\n{output}")
    _CLASS_PATH.touch()


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else _tool("java", "default-jdk-headless")


def _tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MissingToolError(f"{name} is not installed: on Debian it is in {package}")
    return path
