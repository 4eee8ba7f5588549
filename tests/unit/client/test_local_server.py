"""A server of one's own is waited for within a bound, told of when it dies, and always stopped."""

import os
import sys

import pytest

from client.local_server import local_server
from common.errors import Unavailable

# Stands in for `sluice up`: the same options, one behaviour each.
CHILD = """
import os, signal, sys, time
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
print(f"pid {os.getpid()}", flush=True)
if sys.argv[1] == "dies":
    sys.exit("the model is missing")
if sys.argv[1] == "serves":
    with open(options["--ready-file"] + "x", "w") as file:
        file.write("127.0.0.1:7")
    os.replace(options["--ready-file"] + "x", options["--ready-file"])
signal.pause()
"""


def child(how):
    return (sys.executable, "-c", CHILD, how)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pid_in(folder):
    return int((folder / "sluice-up.log").read_text().split()[1])


async def test_it_is_stopped_when_the_block_ends(tmp_path):
    async with local_server(tmp_path, environ=os.environ, program=child("serves")) as address:
        assert address == "127.0.0.1:7"
        assert is_running(pid_in(tmp_path))
    assert not is_running(pid_in(tmp_path))


async def test_it_is_stopped_when_the_block_fails(tmp_path):
    with pytest.raises(LookupError):
        async with local_server(tmp_path, environ=os.environ, program=child("serves")):
            raise LookupError
    assert not is_running(pid_in(tmp_path))


async def test_a_server_that_dies_is_told_of_with_its_last_words(tmp_path):
    with pytest.raises(Unavailable, match=r"ended with status 1:\n(.|\n)*the model is missing"):
        async with local_server(tmp_path, environ=os.environ, program=child("dies")):
            pytest.fail("it never served")


async def test_a_server_that_is_never_ready_is_stopped_after_a_bound(tmp_path):
    with pytest.raises(Unavailable, match="was not ready within 1 s"):
        async with local_server(
            tmp_path, environ=os.environ, program=child("hangs"), start_timeout_s=1
        ):
            pytest.fail("it never served")
    assert not is_running(pid_in(tmp_path))


async def test_a_ready_file_left_by_another_run_counts_for_nothing(tmp_path):
    (tmp_path / "ready").write_text("127.0.0.1:9")
    async with local_server(tmp_path, environ=os.environ, program=child("serves")) as address:
        assert address == "127.0.0.1:7"
