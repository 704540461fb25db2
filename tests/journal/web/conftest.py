"""An open journal with its server, and a small real clip."""

import io
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="make journal installs what the journal needs")

from fastapi.testclient import TestClient

from emotion.journal.journal import Journal
from emotion.journal.schema import Entry
from emotion.journal.web.app import create_app

URL = "http://127.0.0.1:8765"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal") as opened:
        yield opened


@pytest.fixture
def client(journal: Journal) -> Iterator[TestClient]:
    """A browser's requests: with the Origin of the page, following no redirects."""
    headers = {"Origin": URL, "Accept": "text/html"}
    app = create_app(journal)
    with TestClient(app, base_url=URL, headers=headers, follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="session")
def clip(encode_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Half a second of noise, without a face."""
    frames = np.random.default_rng(0).integers(0, 255, (15, 64, 64, 3), np.uint8)
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return encode_video(path, frames).read_bytes()


@pytest.fixture
def add_entry(journal: Journal, clip: bytes) -> Callable[..., Entry]:
    """Give a function that adds an entry, of other bytes each time."""
    numbers = iter(range(10_000))

    def add(person_id: str, day: date | None = None, **words: object) -> Entry:
        file = io.BytesIO(clip + b"\0" * next(numbers))
        entry = journal.receive(person_id, file, "clip.mp4", **words)
        return journal.edit(entry.id, day=day) if day else entry

    return add
