"""What no linter checks about the layout."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_holds_every_package_that_the_layers_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    layers = project["tool"]["importlinter"]["root_packages"]
    assert set(packages) == {*layers, "protos/sluice"}


def test_nothing_hand_written_lives_among_the_stubs():
    files = {path for path in (ROOT / "protos/sluice").rglob("*") if path.is_file()}
    written = {path for path in files if "__pycache__" not in path.parts}
    assert all("_pb2" in path.name or path.suffix == ".proto" for path in written)
    assert written
