"""A benchmark's processes stay on the cores that they were given."""

from __future__ import annotations

import os
import subprocess
import sys

from bench.cores import Cores, on_cores

TELL = "import os; print(sorted(os.sched_getaffinity(0)))"


def test_what_is_started_meanwhile_stays_there_and_this_process_comes_back():
    before = os.sched_getaffinity(0)
    cores = Cores.shared()
    with on_cores(cores.server):
        told = subprocess.check_output([sys.executable, "-c", TELL], text=True)
    assert told.strip() == str([min(before)])
    assert os.sched_getaffinity(0) == before


def test_the_server_shares_its_core_with_nobody_where_there_are_two():
    usable = os.sched_getaffinity(0)
    cores = Cores.shared()
    assert cores.server | cores.others == usable
    assert not cores.server & cores.others or len(usable) == 1
    with on_cores(cores.server):
        alone = Cores.shared()
    assert alone.server == alone.others == cores.server
