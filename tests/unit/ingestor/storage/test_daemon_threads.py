import subprocess
import sys
import threading

from ingestor.storage.daemon_threads import DaemonThreads


def test_no_more_threads_run_than_allowed_and_none_is_lost():
    threads = DaemonThreads(3)
    running: set[int] = set()
    most = 0
    lock = threading.Lock()
    together = threading.Barrier(3)

    def call(number: int) -> int:
        nonlocal most
        with lock:
            running.add(number)
            most = max(most, len(running))
        together.wait(10)  # three at once, or none goes on
        with lock:
            running.remove(number)
        return number

    futures = [threads.submit(call, number) for number in range(30)]
    assert [future.result(10) for future in futures] == list(range(30))
    assert most == 3


def test_idle_threads_end_and_come_again(monkeypatch):
    monkeypatch.setattr("ingestor.storage.daemon_threads._IDLE_S", 0.01)
    threads = DaemonThreads(2)
    first = threads.submit(threading.current_thread).result(10)
    first.join(10)
    assert not first.is_alive()
    second = threads.submit(threading.current_thread).result(10)
    assert second is not first


def test_a_call_that_waits_can_be_cancelled_and_one_that_fails_says_so():
    threads = DaemonThreads(1)
    released = threading.Event()
    running = threads.submit(released.wait, 10)
    waiting = threads.submit(int, "1")
    assert waiting.cancel()
    released.set()
    failing = threads.submit(int, "x")
    assert running.result(10)
    assert isinstance(failing.exception(10), ValueError)


def test_a_call_that_hangs_does_not_keep_the_process():
    program = (
        "import threading; from ingestor.storage.daemon_threads import DaemonThreads;"
        "DaemonThreads(1).submit(threading.Event().wait); print('ended')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "ended\n"
