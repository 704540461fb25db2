"""A signal ends a command at any moment with its status and a last line, and leaves no child."""

import os
import signal
import subprocess
import sys

import pytest

from emotion import REPOSITORY
from tests.processes import wait_until_gone

PREFIX = """
import gc, os, signal, subprocess, sys, time
from emotion import stopping
stopping.stop_on_signals("stopped; it can go on")
"""
ENDINGS = {  # what the main thread does when the signal comes
    "waits": "print('ready', flush=True); time.sleep(60)",
    "computes": "print('ready', flush=True)\nwhile True: pass",
    "exits": """
try:
    print('ready', flush=True); time.sleep(60)
except KeyboardInterrupt:  # as Lightning does
    sys.exit(1)
""",
    "returns": """
try:
    print('ready', flush=True); time.sleep(60)
except KeyboardInterrupt:
    pass
""",
    "fails": """
try:
    print('ready', flush=True); time.sleep(60)
finally:
    raise ImportError('of a half-initialized module')
""",
}
SWALLOWED = """
class Holder:
    def __del__(self):
        print('ready', flush=True)
        time.sleep(60)
stopping.GRACE_S = 0.5
holder = Holder()
holder.itself = holder
del holder
gc.collect()
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
print(child.pid, flush=True)
time.sleep(60)
"""


def start(code: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PREFIX + code], cwd=REPOSITORY, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_signal_ends_a_command_with_its_status_and_one_line(ending: str, sent: signal.Signals):
    process = start(ENDINGS[ending])
    assert process.stdout.readline() == "ready\n"
    process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (128 + sent, "stopped; it can go on\n")


@pytest.mark.timeout(60)
def test_a_swallowed_signal_ends_the_command_and_its_children_too():
    process = start(SWALLOWED)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    child = int(process.stdout.readline())
    process.wait(30)
    err = process.stderr.read()
    assert (process.returncode, err) == (128 + signal.SIGINT, "stopped; it can go on\n")
    assert not wait_until_gone([child], patience_s=20)


def test_without_a_signal_nothing_changes():
    process = start("sys.exit(7)")
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 7


@pytest.mark.timeout(60)
def test_a_forked_child_leaves_signals_to_its_parent():
    # Python 3.12 and later warn of a fork beside threads. The thread that waits for signals holds
    # no lock, so this fork is safe, as are those of data loaders, whose warning Python hides.
    process = start("""
import warnings
warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
pid = os.fork()
if pid == 0:
    os.kill(os.getpid(), signal.SIGINT)  # as a terminal sends it to the group
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)  # as a parent ends its worker
    time.sleep(60)
_, status = os.waitpid(pid, 0)
time.sleep(0.3)
print(os.waitstatus_to_exitcode(status), stopping.is_stopped(), flush=True)
""")
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == (f"{-signal.SIGTERM} False\n", "", 0)


WORKER = """
import os, time
from emotion.stopping import end_with
end_with(os.getppid())
time.sleep(60)
"""


@pytest.mark.timeout(60)
def test_a_worker_ends_when_its_parent_is_killed():
    process = start(f"""
child = subprocess.Popen([sys.executable, "-c", {WORKER!r}])
time.sleep(0.5)
print(child.pid, child.poll(), flush=True)
time.sleep(60)
""")
    child, status = process.stdout.readline().split()
    assert status == "None"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not wait_until_gone([int(child)], patience_s=20)
