"""The command that serves the journal."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from emotion import REPOSITORY
from tests.processes import wait_until_gone

pytestmark = pytest.mark.slow


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "emotion.journal", "--folder", str(folder), "--no-browser"]
    return subprocess.Popen(
        [*command, *arguments], cwd=REPOSITORY, env=os.environ | environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_serves_until_a_signal_and_ends_in_order(tmp_path: Path, number: int, status: int):
    server = start(tmp_path / "journal", "--port", "0")
    url = next(word for word in server.stdout.readline().split() if word.startswith("http"))
    with urllib.request.urlopen(url) as page:
        assert page.status == 200
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    children = [child.pid for child in psutil.Process(server.pid).children(recursive=True)]
    second = start(tmp_path / "journal", "--port", "0")
    assert second.wait(60) == 1 and "in use" in second.stderr.read()
    server.send_signal(number)
    _, errors = server.communicate(timeout=20)
    assert server.returncode == status and len(errors.splitlines()) == 1
    assert wait_until_gone(children, 10) == []


def test_a_missing_package_is_named_with_the_remedy(tmp_path: Path):
    code = "import sys; sys.modules['uvicorn'] = None\n"
    code += "from emotion.journal.__main__ import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "--folder", str(tmp_path)], cwd=REPOSITORY,
        text=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert line.startswith("error: ") and "uvicorn" in line and "make journal" in line


def test_mistakes_are_one_line(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        others = [("--port", port), ("--port", "99999"), ("--port", "0", "--host", "0.0.0.0")]
        for arguments in others:
            server = start(tmp_path / "journal", *arguments)
            assert server.wait(60) == 1
            (line,) = server.stderr.read().splitlines()
            assert line.startswith("error: ") and ("port" in line or "password" in line)
