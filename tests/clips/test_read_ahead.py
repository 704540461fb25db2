"""Reading frames in a background thread."""

from collections.abc import Iterator
from threading import Event

import pytest

from emotion.clips.read_ahead import ReadAhead
from emotion.clips.video import VideoError


class Counter:
    """Replaces a clip: its frames are numbers, and it ends with an error."""

    fps = 30.0

    def __init__(self, num: int) -> None:
        self.num = num
        self.closed = Event()

    def pictures(self) -> Iterator[int]:
        try:
            yield from range(self.num)
            raise VideoError("truncated")
        finally:
            self.closed.set()


def test_every_frame_comes_before_the_error():
    counter, read = Counter(40), []
    with pytest.raises(VideoError, match="truncated"):
        for number in ReadAhead(counter, frames=3).pictures():
            read.append(number)
    assert read == list(range(40)) and counter.closed.is_set()


def test_closing_stops_the_source():
    counter = Counter(10_000)
    ahead = ReadAhead(counter, frames=3)
    pictures = ahead.pictures()
    assert [next(pictures) for _ in range(5)] == [0, 1, 2, 3, 4]
    pictures.close()
    assert counter.closed.is_set() and ahead.num_dropped == 0


def test_a_late_caller_gets_the_latest_frames():
    counter = Counter(60)
    ahead = ReadAhead(counter, frames=3, drop_late=True)
    pictures = ahead.pictures()
    read = [next(pictures)]
    assert counter.closed.wait(timeout=60)
    with pytest.raises(VideoError):
        while True:
            read.append(next(pictures))
    late = read[1:]  # the queue's content
    assert late == [57, 58, 59][-len(late) :] and len(late) >= 2
    assert ahead.num_dropped == 60 - len(read)
