"""Decode a clip or read a camera in a background thread."""

from collections.abc import Iterator
from contextlib import closing, suppress
from queue import Empty, Full, Queue
from threading import Event, Thread

from emotion.clips.video import Picture, Pictures

FRAMES = 8  # frames decoded in advance; of 4K video, 100 MB


class ReadAhead:
    """Reads frames in a background thread while the caller works on earlier ones.

    If the queue is full, the source waits, or its oldest frame is dropped with `drop_late`.
    """

    def __init__(self, source: Pictures, frames: int = FRAMES, drop_late: bool = False) -> None:
        """Store a source that has not been read yet."""
        self.fps = source.fps
        self.num_dropped = 0
        self._source = source
        self._drop_late = drop_late
        self._waiting: Queue[Picture | Exception | None] = Queue(frames)
        self._stopped = Event()

    def pictures(self) -> Iterator[Picture]:
        """Yield the frames in presentation order; raises what the source raises."""
        thread = Thread(target=self._read, daemon=True)  # a camera may block forever
        thread.start()
        try:
            while (item := self._waiting.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self._stopped.set()
            thread.join(timeout=1.0)

    def _read(self) -> None:
        end = None
        try:
            with closing(self._source.pictures()) as pictures:
                for picture in pictures:
                    if self._drop_late and self._waiting.full():
                        with suppress(Empty):
                            self._waiting.get_nowait()
                            self.num_dropped += 1
                    self._put(picture)
                    if self._stopped.is_set():
                        return
        except Exception as error:  # re-raised by `pictures`
            end = error
        self._put(end)

    def _put(self, item: Picture | Exception | None) -> None:
        """Wait for a free place in the queue, or until the caller stops."""
        while not self._stopped.is_set():
            with suppress(Full):
                self._waiting.put(item, timeout=0.1)
                return
