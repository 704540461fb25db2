"""Clips arrive whole or not at all, whatever is sent."""

import socket
import threading
import time
from pathlib import Path

import pytest
import uvicorn

from emotion.journal.web import actions
from emotion.journal.web.app import create_app
from emotion.journal.web.old_clips import plain_name


def files_of(journal):
    return sorted(path.name for path in journal.folder.root.rglob("*.mp4"))


@pytest.fixture
def ada(journal):
    return journal.add_person("Ada").id


def test_a_clip_is_kept_with_its_words(client, journal, ada, clip):
    query = {"name": "../../x<y>.mp4", "note": "Snow", "tags": "sea, with Ada,,sea",
             "recorded_at": "2026-03-01T21:05:00"}  # fmt: skip
    response = client.post(f"/people/{ada}/entries", params=query, content=clip)
    assert response.status_code == 201
    entry = journal.entry(response.json()["id"])
    assert (entry.note, entry.tags, str(entry.recorded_at)) == (
        "Snow", ["sea", "with Ada"], "2026-03-01 21:05:00",
    )  # fmt: skip
    assert journal.media(entry, "clip").read_bytes() == clip
    assert client.get(f"/media/{entry.id}/clip").content == clip
    part = client.get(f"/media/{entry.id}/clip", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, clip[10:20])


@pytest.mark.parametrize("streamed", [False, True])
def test_a_clip_that_is_too_large_is_refused(client, journal, ada, monkeypatch, streamed):
    monkeypatch.setattr(actions, "MAX_CLIP_BYTES", 1 << 20)
    chunks = (b"\0" * 65536 for _ in range(1000))
    content = chunks if streamed else b"\0" * (2 << 20)
    response = client.post(f"/people/{ada}/entries?name=a.mp4", content=content)
    assert response.status_code == 400 and "1 MiB" in response.text
    assert files_of(journal) == []


def test_nothing_is_kept_for_nobody(client, journal, clip):
    assert client.post("/people/x/entries?name=a.mp4", content=clip).status_code == 404
    assert files_of(journal) == []


@pytest.mark.slow
def test_nothing_is_kept_of_an_upload_that_breaks_off(journal, ada):
    server = uvicorn.Server(uvicorn.Config(create_app(journal), port=0, log_level="error"))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        head = (
            f"POST /people/{ada}/entries?name=a.mp4 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Origin: http://127.0.0.1:{port}\r\nContent-Length: 10000000\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head.encode() + b"\0" * 3_000_000)
            wait_for(lambda: list(journal.folder.pending.iterdir()))
        wait_for(lambda: not list(journal.folder.pending.iterdir()))
        assert journal.search(ada) == [] and files_of(journal) == []
    finally:
        server.should_exit = True
        thread.join()


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "..\\..\\x.mp4", "a/../../b.mov", ".hidden", "\0", "", "x" * 900, "ü" * 300],
)
def test_names_of_old_clips_stay_in_their_folder(name, tmp_path):
    plain = plain_name(name)
    assert Path(plain).name == plain and not plain.startswith(".")
    (tmp_path / plain).write_bytes(b"")
