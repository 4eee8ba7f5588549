import pytest

from ingestor import checks as module
from ingestor.checks import checks


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
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == missing else name)
    failed = [c for c in look(XDG_DATA_HOME=str(tmp_path)).values() if not c.ok]
    assert [check.cure for check in failed] == ["install sluice[ingestor]"]
