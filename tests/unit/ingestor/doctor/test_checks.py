import pytest

from ingestor.doctor import checks as checks_module
from ingestor.doctor import hdfs_checks
from ingestor.doctor.checks import checks
from ingestor.doctor.hdfs_probe import Finding, Outcome


def look(**environ):
    return {check.name: check for check in checks(file=None, environ=environ)}


def test_a_sound_installation_passes_and_nothing_is_created(tmp_path):
    found = look(XDG_DATA_HOME=str(tmp_path / "data"))
    assert all(check.ok and not check.cure for check in found.values())
    assert found["ingest state"].detail == str(tmp_path / "data/sluice/state")
    assert list(tmp_path.iterdir()) == []


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    (check,) = (
        c for c in look(SLUICE_INGEST__STATE_URI=f"{tmp_path}/file/state").values() if not c.ok
    )
    assert check.detail == f"{tmp_path}/file cannot be written"
    assert "ingest.state_uri" in check.cure


@pytest.mark.parametrize("missing", ["kreuzberg", "hdfs_native"])
def test_what_is_not_installed_is_named(missing, monkeypatch, tmp_path):
    for module in (checks_module, hdfs_checks):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == missing else name)
    found = look(XDG_DATA_HOME=str(tmp_path), SLUICE_INGEST__HDFS__CLIENT="native")
    failed = [check for check in found.values() if not check.ok]
    assert [check.cure for check in failed] == ["install sluice[ingestor]"]


def test_hdfs_is_not_looked_for_where_nothing_mentions_it(tmp_path):
    found = look(XDG_DATA_HOME=str(tmp_path))
    assert [name for name in found if "HDFS" in name or name == "Kerberos"] == ["HDFS client"]


def test_state_in_hdfs_is_not_opened_in_this_process(monkeypatch):
    def refuse(*_):
        pytest.fail("a client was opened")

    monkeypatch.setattr(checks_module, "locate", refuse)
    found = look(SLUICE_INGEST__STATE_URI="hdfs:///sluice")
    assert found["ingest state"].detail == "hdfs:///sluice, looked at with HDFS"
    fault = found["HDFS nameservice"]
    assert fault.detail.startswith("ingest.state_uri names no cluster, which is no nameservice")
    assert "HOST:PORT" in fault.cure


@pytest.mark.parametrize(
    ("outcome", "detail", "cure"),
    [
        (Outcome.UNAUTHENTICATED, "does not accept this login: said", "log in by kinit"),
        (Outcome.NO_CLIENT, "was not asked: said", "CLASSPATH"),
        (Outcome.FAILED, "gives an error: said", "RPC port"),
    ],
)
def test_what_a_name_node_may_say_besides(outcome, detail, cure):
    node = hdfs_checks._NameNode("host:1", "nn1", "lake")
    found = hdfs_checks._name_node(node, Finding(outcome, "said"), may_call=True)
    assert (found.name, found.ok) == ("name node host:1", False)
    assert found.detail == f"nn1 of lake {detail}"
    assert cure in found.cure
