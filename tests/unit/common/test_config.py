from pathlib import Path

import pytest

from common import config
from common.config import Settings, load
from common.errors import ConfigurationError


class Chroma(Settings):
    host: str = "localhost"
    port: int = 8000


class Embedding(Settings):
    names: tuple[str, ...] = ()


class Example(Settings):
    chroma: Chroma = Chroma()
    embedding: Embedding = Embedding()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sluice.yaml"
    path.write_text("chroma: {host: from-file, port: 1}\nquery: {listen: elsewhere}\n")
    return path


def test_defaults_hold_where_nothing_is_said():
    assert load(Example, file=None, environ={}) == Example()


def test_environment_beats_file_and_flags_beat_both(file):
    environ = {"SLUICE_CHROMA__PORT": "2", "SLUICE_CHROMA__HOST": "from-environment", "PATH": "x"}
    overrides = {"chroma": {"host": "from-flag", "port": None}}
    loaded = load(Example, file=file, environ=environ, overrides=overrides)
    assert loaded.chroma == Chroma(host="from-flag", port=2)


def test_a_value_of_the_environment_is_read_as_yaml():
    environ = {"SLUICE_EMBEDDING__NAMES": "[a, b]"}
    assert load(Example, file=None, environ=environ).embedding.names == ("a", "b")


def test_a_loaded_model_is_frozen(file):
    loaded = load(Example, file=file, environ={})
    with pytest.raises(ValueError, match="frozen"):
        setattr(loaded.chroma, "port", 3)  # noqa: B010 — mypy knows it is read-only


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chroma: {hots: x}", r"chroma\.hots: no such key"),
        ("chroma: {port: many}", r"chroma\.port: Input should be a valid integer"),
        ("chorma: {}", "chorma: no such section; the sections are chroma, "),
        ("- a", "must hold a mapping"),
        ("a: [", "is not YAML at line 1"),
    ],
)
def test_a_fault_in_the_file_names_the_key(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load(Example, file=path, environ={})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none\.yaml: cannot be read: No such file"):
        load(Example, file=tmp_path / "none.yaml", environ={})


@pytest.mark.parametrize("name", ["SLUICE_CHROMA__HOTS", "SLUICE_CHORMA__HOST", "SLUICE_CHROMA"])
def test_an_unknown_variable_is_an_error(name):
    with pytest.raises(ConfigurationError, match=r"CHROMA|chroma\.hots|chorma"):
        load(Example, file=None, environ={name: "x"})


def test_no_value_is_shown_in_an_error():
    with pytest.raises(ConfigurationError) as caught:
        load(Example, file=None, environ={"SLUICE_CHROMA__PORT": "s3cret"})
    assert "s3cret" not in str(caught.value)


def test_sections_are_sorted_so_that_the_message_reads_well():
    assert list(config.SECTIONS) == sorted(config.SECTIONS)
