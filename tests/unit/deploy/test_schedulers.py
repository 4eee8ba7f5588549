"""The batch job from cron and from Airflow: right command lines, and exit code 3 told apart."""

import ast
import fcntl
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
import typer

from client import cli
from ingestor.flags import WITH_DEAD_LETTERS
from ingestor.settings import IngestSettings
from tests.unit.deploy.command_line import parsed
from tests.unit.deploy.rendering import DEPLOY

SCRIPT = DEPLOY / "cron/ingest.sh"
DAG = DEPLOY / "airflow/sluice_ingest.py"
RUN_S = 30
FIELDS = 5  # of a time in a crontab; then a user and a command


@pytest.fixture
def cron(tmp_path):
    """Run the script with a program in the place of `sluice`: exit code, mail, log, arguments."""
    job, log, logger = tmp_path / "sluice", tmp_path / "log", tmp_path / "logger"
    logger.write_text('#!/bin/sh\nwhile IFS= read -r line; do echo "$4 $line"; done >>"$LOG"\n')
    logger.chmod(0o700)

    def run(body, **environ):
        job.write_text(f"#!/bin/sh\n{body}\n")
        job.chmod(0o700)
        log.write_text("")
        done = subprocess.run(
            [SCRIPT, "hdfs://lake/my docs", "--collection", "docs"],
            check=False,
            capture_output=True,
            env={
                "PATH": os.environ["PATH"],
                "SLUICE": str(job),
                "LOGGER": str(logger),
                "LOG": str(log),
                "LOCK": str(tmp_path / "lock"),
                **environ,
            },
            text=True,
            timeout=RUN_S,
        )
        assert not done.stdout
        return done.returncode, done.stderr, log.read_text()

    return run


def test_a_job_that_is_done_is_logged_and_mails_nothing(cron):
    code, mail, log = cron('for argument; do echo "$argument"; done; echo told >&2')
    assert (code, mail) == (0, "")
    told = ("ingest", "hdfs://lake/my docs", "--collection", "docs", "told")
    assert log.splitlines() == [f"user.info {line}" for line in told]


@pytest.mark.parametrize(
    ("ends", "priority", "tells"),
    [
        (WITH_DEAD_LETTERS, "warning", "sluice dead-letters list"),
        (cli.FAILED, "err", "failed with exit code 1"),
        (cli.WRONG_USAGE, "err", "failed with exit code 2"),
    ],
)
def test_an_exit_code_is_kept_mailed_and_logged(cron, ends, priority, tells):
    code, mail, log = cron(f"exit {ends}")
    assert code == ends
    assert tells in mail
    [line] = log.splitlines()
    assert line.startswith(f"user.{priority} ")
    assert tells in line


def test_a_job_that_takes_too_long_is_asked_to_stop(cron):
    code, mail, log = cron('trap "echo stopping; exit 1" TERM; sleep 20 & wait', LIMIT="0.3s")
    assert code == 124
    assert "stopped after 0.3s" in mail
    assert "user.info stopping" in log


def test_no_second_job_begins(cron, tmp_path):
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, mail, log = cron("echo begun")
    assert (code, mail) == (0, "")
    assert "the last job still runs" in log
    assert "user.info begun" not in log
    assert "user.info begun" in cron("echo begun")[2]


def test_what_a_job_left_behind_does_not_hold_the_lock(cron, tmp_path):
    child = tmp_path / "child"
    cron(f"sleep 60 >/dev/null 2>&1 & echo $! >{child}")
    try:
        assert "user.info begun" in cron("echo begun")[2]
    finally:
        os.kill(int(child.read_text()), signal.SIGKILL)


def test_the_crontab_calls_the_script_with_what_sluice_parsed():
    lines = (DEPLOY / "cron/sluice-ingest").read_text().splitlines()
    [line] = [one for one in lines if re.match(r"[\d*]", one)]
    user, program, *arguments = shlex.split(line)[FIELDS:]
    assert user == "sluice"
    assert Path(program).name == SCRIPT.name
    assert os.access(SCRIPT, os.X_OK)
    assert parsed(["ingest", *arguments]).command_path == "sluice ingest"
    # A % would end the command in a crontab.
    assert "%" not in line


def test_a_stopped_job_has_time_to_finish():
    written = SCRIPT.read_text()
    kill_after = re.search(r"KILL_AFTER:=(\d+)s", written)
    assert kill_after
    assert int(kill_after[1]) > IngestSettings().stop_timeout_s


def constants(tree):
    """The names that the module gives to constants."""
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def value_of(node, names):
    """What an expression of the DAG is: a constant, a name of one, or an f-string of both."""
    if isinstance(node, ast.JoinedStr):
        return "".join(value_of(part, names) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return str(value_of(node.value, names))
    return names[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)


def test_the_tasks_call_what_sluice_takes_and_dead_letters_are_no_failure():
    tree = ast.parse(DAG.read_text())
    names = constants(tree)
    assert names["DEAD_LETTERS"] == WITH_DEAD_LETTERS
    tasks = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "BashOperator":
            given = {one.arg: one.value for one in node.keywords}
            tasks[ast.literal_eval(given["task_id"])] = given
    assert tasks.keys() == {"ingest", "dead_letters"}
    for given in tasks.values():
        shell, program, *arguments = shlex.split(value_of(given["bash_command"], names))
        assert [shell, program] == ["exec", "sluice"]
        assert parsed(arguments).command_path.startswith("sluice ")
    assert value_of(tasks["ingest"]["skip_on_exit_code"], names) == WITH_DEAD_LETTERS
    # Only a skipped job has dead letters to list.
    assert value_of(tasks["dead_letters"]["trigger_rule"], names) == "all_skipped"


def test_a_wrong_command_line_would_be_seen():
    with pytest.raises(typer.TyperException, match="no-such-option"):
        parsed(["ingest", "hdfs://lake/docs", "--collection", "docs", "--no-such-option"])
