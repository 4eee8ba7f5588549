"""Each fault is named, and its cure beside it."""

import socket

import pytest

from client import doctor
from client.settings import Connection
from common.doctor import Check
from common.rpc import GrpcServer, ServerSettings, ServiceBinding
from standalone.commands import checks as checks_of_up

HASHING = {"SLUICE_EMBEDDING__KIND": "hashing"}


@pytest.fixture
def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield free.getsockname()[1]  # bound and not listening: nobody else takes or answers it


@pytest.fixture
def examine(closed_port):
    """The findings by name; no server runs."""

    def run(environ=HASHING, file=None):
        target = f"127.0.0.1:{closed_port}"
        found = list(doctor.examine(file=file, environ=environ, target=target))
        return {check.name: check for check in found}

    return run


def test_what_works_is_said_so(examine):
    found = examine()
    assert {name for name, check in found.items() if check.ok} >= {
        "python",
        "sluice",
        "settings",
        "embedding",
        "coordinator",
        "vector store",
    }
    assert all(check.cure for check in found.values() if not check.ok)


def test_no_server_is_one_fault(examine, closed_port):
    fault = examine()["server"]
    assert (fault.ok, fault.detail) == (False, f"no server answers at 127.0.0.1:{closed_port}")
    assert "sluice up" in fault.cure


def test_a_wrong_key_is_named_and_ends_the_examination(examine):
    found = examine({"SLUICE_CLIENT__TAGRET": "here"})
    assert found["settings"].detail == "client.tagret: no such key"
    assert "server" not in found


def test_an_old_python_is_a_fault(examine, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_PYTHON", (4, 0))
    assert examine()["python"].cure == "install Python 4.0 or newer"


def test_a_missing_model_is_a_fault(examine, tmp_path):
    fault = examine({"SLUICE_EMBEDDING__MODELS_DIR": str(tmp_path)})["embedding"]
    assert not fault.ok
    assert "sluice models fetch" in fault.detail


def test_an_etcd_that_does_not_answer_is_a_fault(examine, closed_port):
    endpoint = f"127.0.0.1:{closed_port}"
    environ = {
        **HASHING,
        "SLUICE_COORDINATOR__KIND": "etcd",
        "SLUICE_COORDINATOR__ENDPOINTS": f"[{endpoint!r}]",
        "SLUICE_COORDINATOR__TIMEOUT_MS": "500",
    }
    fault = examine(environ)["coordinator"]
    assert not fault.ok
    assert fault.detail.startswith(f"etcd at {endpoint}: ")
    assert "coordinator.endpoints" in fault.cure


def test_a_chroma_server_that_does_not_answer_is_a_fault(examine, closed_port):
    fault = examine({**HASHING, "SLUICE_CHROMA__PORT": str(closed_port)})["vector store"]
    assert not fault.ok
    assert "chroma run" in fault.cure


class Point:
    """An entry point that names a check of the test."""

    def __init__(self, name, source):
        self.name = name
        self.load = lambda: source


def test_checks_of_other_parts_are_run_and_their_failures_are_findings(examine, monkeypatch):
    def good(*, file, environ):
        assert (file, environ) == (None, HASHING)
        return [Check("native library", ok=True, detail="loads")]

    def bare(**_):
        raise ModuleNotFoundError(name="pyarrow")

    def broken(**_):
        yield Check("first", ok=True, detail="fine")
        raise RuntimeError("secret")

    points = [Point("good", good), Point("bare", bare), Point("broken", broken)]
    monkeypatch.setattr(doctor, "entry_points", lambda **_: points)
    found = examine()
    assert found["native library"].ok
    assert found["first"].ok
    assert (found["bare"].ok, found["bare"].detail) == (False, "pyarrow is not installed")
    assert found["broken"].detail == "the check itself failed (RuntimeError)"


async def test_each_service_is_asked_for_its_health():
    binding = ServiceBinding("sluice.query.v1.QueryService", lambda _: None)
    settings = ServerSettings(listen="127.0.0.1:0", drain_s=0)
    async with GrpcServer.open(settings, [binding]) as server:
        found = await doctor.probe_servers(Connection(target=server.address))
    assert [(check.name, check.ok) for check in found] == [
        ("index server", False),
        ("collections server", False),
        ("query server", True),
    ]
    assert found[0].detail == f"{server.address} does not offer sluice.index.v1.IndexService"
    assert "client.query_target" in found[0].cure


async def test_a_draining_server_is_a_fault(monkeypatch):
    binding = ServiceBinding("sluice.query.v1.QueryService", lambda _: None)
    settings = ServerSettings(listen="127.0.0.1:0", drain_s=0)
    monkeypatch.setattr(doctor, "SERVICES", (("query", binding.name),))
    async with GrpcServer.open(settings, [binding]) as server:
        server._health.stop()
        (fault,) = await doctor.probe_servers(Connection(target=server.address))
    assert fault.detail == f"{server.address} says NOT_SERVING"


def test_a_data_folder_that_is_a_file_is_a_fault(tmp_path):
    (tmp_path / "file").write_text("")
    environ = {"SLUICE_UP__DATA_DIR": str(tmp_path / "file" / "data")}
    (fault,) = checks_of_up(file=None, environ=environ)
    assert (fault.ok, fault.detail) == (False, f"{tmp_path / 'file'} cannot be written")


def test_a_data_folder_and_its_disk_are_looked_at_and_left_alone(tmp_path, monkeypatch):
    environ = {"SLUICE_UP__DATA_DIR": str(tmp_path / "data")}
    folder, disk = checks_of_up(file=None, environ=environ)
    assert (folder.ok, disk.ok) == (True, True)
    assert not (tmp_path / "data").exists()
    monkeypatch.setattr("standalone.commands.LEAST_FREE_BYTES", 2**70)
    assert "free at least" in list(checks_of_up(file=None, environ=environ))[1].cure
