"""clips ──cut──> segments, and which of their frames become images: pure arithmetic.

The second step of the way of the data. Frames are numbered from 0 in the whole clip; a segment is
`segment_frames` of them, the last one what is left. An image is taken at every frame whose number
is a multiple of the interval, which divides the segment, so that all segments are sampled alike.

With `sampling.by=frames` the numbers count the frames of the file, as in the seed, whatever its
rate. With `sampling.by=time` they count moments, 30 a second, and the frame nearest to a moment
stands for it, so that 60 fps, 24 fps and variable rates give images of the same moments.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from emotion.errors import UserError

Frame = TypeVar("Frame")

BY = ("frames", "time")
NOMINAL_FPS = 30.0  # moments a second: a segment of 90 is 3 s, as the seed's at its usual rate
MAX_GAP_S = 10.0  # no face holds still for longer; where timestamps say so, the clock has jumped
TIE_S = 1e-6  # half-way between two frames, the later one stands for a moment


def num_images(segment_frames: int, interval: int) -> int:
    """Count the images of a stack: one at frames 0, interval, 2 * interval, ... of a segment.

    >>> [num_images(90, interval) for interval in (5, 10, 15)]
    [18, 9, 6]

    Raises:
        UserError: the interval does not divide the segment, so that the time between the last
            image of a segment and the first of the next would differ from the rest.
    """
    if interval < 1 or segment_frames % interval:
        divisors = [n for n in range(1, segment_frames + 1) if segment_frames % n == 0]
        raise UserError(
            f"an interval of {interval} frames does not divide the segment of {segment_frames} "
            f"frames (sampling.segment_frames); these do: {', '.join(map(str, divisors))}"
        )
    return segment_frames // interval


def interval_step(interval: int, cached_interval: int, segment_frames: int) -> int:
    """Find which images of a cached stack an interval takes: every `step`-th.

    Args:
        interval: frames from one image to the next, as asked for.
        cached_interval: the same, as the cache was made.
        segment_frames: frames in a segment.

    Returns:
        The step, 1 or more.

    Raises:
        UserError: the cache has no images at this interval; names the command that makes them.
    """
    num_images(segment_frames, interval)
    if interval % cached_interval:
        raise UserError(
            f"the cache keeps an image every {cached_interval} frames, which serves no interval "
            f"of {interval}; make one that does: python preprocess.py "
            f"sampling.interval={interval} (and give the same to train.py)"
        )
    return interval // cached_interval


def number_frames(
    frames: Iterable[tuple[float | None, Frame]], by: str, fps: float
) -> Iterator[tuple[int, Frame]]:
    """Give frames the numbers that segments and intervals count.

    Args:
        frames: timestamp in seconds, or None, and the frame, in the order of presentation.
        by: `frames` numbers all of them, `time` numbers moments.
        fps: frames per second by the header, for where timestamps are missing.

    Yields:
        0, 1, 2, ... and the frame of that number. With `time` a frame may come several times in
        a row, or not at all.
    """
    if by == "frames":
        yield from enumerate(frame for _, frame in frames)
    else:
        yield from enumerate(nearest_frames(mend_times(frames, 1 / fps), 1 / fps))


def mend_times(
    frames: Iterable[tuple[float | None, Frame]], gap_s: float
) -> Iterator[tuple[float, Frame]]:
    """Let timestamps begin at 0 and increase; change only those that don't.

    A timestamp counts if it lies between the one before and the one to follow. One that does not
    is put half-way between the two, or `gap_s` after the one before where the one to follow is no
    better. After a jump by more than `MAX_GAP_S`, or back, the clock counts as set anew.

    Args:
        frames: timestamp in seconds, or None, and the frame, in the order of presentation.
        gap_s: usual time from one frame to the next.

    Yields:
        Timestamp and frame.

    >>> frames = [(5.0, "a"), (5.2, "b"), (5.1, "c"), (None, "d"), (5.4, "e"), (0.0, "f")]
    >>> [(round(time_s, 3), frame) for time_s, frame in mend_times(frames, 0.1)]
    [(0.0, 'a'), (0.05, 'b'), (0.1, 'c'), (0.25, 'd'), (0.4, 'e'), (0.5, 'f')]
    """
    iterator = iter(frames)
    current = next(iterator, None)
    last_s: float | None = None  # of the frame before, by our clock
    zero_s: float | None = None  # where our clock began, by the clip's; None before one counts
    while current is not None:
        following = next(iterator, None)
        clip_s, frame = current
        next_s = following[0] if following else None
        in_order = clip_s is not None and (next_s is None or clip_s <= next_s)
        next_counts = counts(next_s, zero_s, last_s)
        if counts(clip_s, zero_s, last_s) and (in_order or not next_counts):
            time_s = clip_s - zero_s
        elif next_counts:
            time_s = (last_s + next_s - zero_s) / 2
        else:
            time_s = 0.0 if last_s is None else last_s + gap_s
            if in_order and (zero_s is None or clip_s != next_s):  # or the clock stands still
                zero_s = clip_s - time_s
        yield time_s, frame
        last_s, current = time_s, following


def counts(clip_s: float | None, zero_s: float | None, last_s: float | None) -> bool:
    """Tell whether a timestamp can follow the frame before, at `last_s` of a clock set to zero."""
    return None not in (clip_s, zero_s) and last_s < clip_s - zero_s <= last_s + MAX_GAP_S


def nearest_frames(frames: Iterable[tuple[float, Frame]], gap_s: float) -> Iterator[Frame]:
    """Find the frame nearest to each of the moments 0, 1, 2, ... / `NOMINAL_FPS`.

    Args:
        frames: timestamp in seconds, from 0 and increasing, and the frame.
        gap_s: for how long the last frame is shown.

    Yields:
        As many frames as there are moments in the time that the clip takes.

    >>> at_24_fps = [(number / 24, number) for number in range(12)]
    >>> list(nearest_frames(at_24_fps, 1 / 24))
    [0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 10, 11]
    """
    moment = 0
    last: tuple[float, Frame] | None = None
    for time_s, frame in frames:
        if last is not None:
            middle_s = (last[0] + time_s) / 2 - TIE_S
            while moment / NOMINAL_FPS < middle_s:
                yield last[1]
                moment += 1
        last = time_s, frame
    if last is not None:
        while moment < round((last[0] + gap_s) * NOMINAL_FPS):
            yield last[1]
            moment += 1
