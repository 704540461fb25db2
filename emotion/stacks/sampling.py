"""Which frames of a clip become images: arithmetic on frame numbers and timestamps.

An image is taken at every frame whose number in the clip is a multiple of the interval. The numbers
count the frames of the file, or with `sampling.by=time` the moments, 30 per second.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import TypeVar

from emotion.errors import UserError

Frame = TypeVar("Frame")

NOMINAL_FPS = 30.0  # moments per second: a segment of 90 is 3 s
MAX_GAP_S = 10.0  # a longer gap between timestamps means that the clock was reset
TIE_S = 1e-6  # halfway between two frames, the later one is used


def num_images(segment_frames: int, interval: int) -> int:
    """Count the images of a stack, or raise a UserError if the interval does not divide a segment.

    >>> [num_images(90, interval) for interval in (5, 10, 15)]
    [18, 9, 6]
    """
    if interval < 1 or segment_frames % interval:
        divisors = [n for n in range(1, segment_frames + 1) if segment_frames % n == 0]
        raise UserError(
            f"the interval must divide sampling.segment_frames={segment_frames}, got {interval}; "
            f"these do: {', '.join(map(str, divisors))}"
        )
    return segment_frames // interval


def interval_step(interval: int, cached_interval: int, segment_frames: int) -> int:
    """Return the step with which an interval takes cached images, or raise a UserError."""
    num_images(segment_frames, interval)
    if interval % cached_interval:
        raise UserError(
            f"the interval must be a multiple of sampling.interval={cached_interval}, at which the "
            f"cache has images, got {interval}; run preprocess.py with sampling.interval={interval}"
            " and give the same to train.py"
        )
    return interval // cached_interval


def number_frames(
    frames: Iterable[tuple[float | None, Frame]], by: str, fps: float
) -> Iterator[tuple[int, Frame]]:
    """Number frames, each with its timestamp in seconds or None, by `frames` or `time`.

    By time, a frame may repeat or be skipped; `fps` is used where timestamps are missing.
    """
    if by == "frames":
        yield from enumerate(frame for _, frame in frames)
    else:
        yield from enumerate(nearest_frames(mend_times(frames, 1 / fps), 1 / fps))


def sampled_frames(times_s: Iterable[float], fps: float, interval: int, by: str) -> set[int]:
    """Return which frames of a clip become images, numbered from 0 in the file.

    Arguments are as in `number_frames`.

    >>> sorted(sampled_frames([0.0, 0.1, 0.2, 0.3], 10, interval=6, by="time"))
    [0, 2]
    """
    frames = ((time_s, place) for place, time_s in enumerate(times_s))
    return {place for number, place in number_frames(frames, by, fps) if number % interval == 0}


def mend_times(
    frames: Iterable[tuple[float | None, Frame]], gap_s: float
) -> Iterator[tuple[float, Frame]]:
    """Make timestamps start at 0 and increase.

    One that is not between the one before and the one after is replaced by their middle, or by
    `gap_s` after the one before if the one after is invalid too. A jump back, or by more than
    `MAX_GAP_S`, resets the clock.

    >>> frames = [(5.0, "a"), (5.2, "b"), (5.1, "c"), (None, "d"), (5.4, "e"), (0.0, "f")]
    >>> [(round(time_s, 3), frame) for time_s, frame in mend_times(frames, 0.1)]
    [(0.0, 'a'), (0.05, 'b'), (0.1, 'c'), (0.25, 'd'), (0.4, 'e'), (0.5, 'f')]
    """
    last_s: float | None = None  # of the frame before, on our clock
    zero_s: float | None = None  # start of our clock, on the clip's; None before a valid timestamp
    for (clip_s, frame), following in pairwise(chain(frames, [None])):
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
        last_s = time_s


def counts(clip_s: float | None, zero_s: float | None, last_s: float | None) -> bool:
    """Return whether a timestamp can follow the frame at `last_s` on a clock set to `zero_s`."""
    return None not in (clip_s, zero_s) and last_s < clip_s - zero_s <= last_s + MAX_GAP_S


def nearest_frames(frames: Iterable[tuple[float, Frame]], gap_s: float) -> Iterator[Frame]:
    """Yield the frame nearest to each of the moments 0, 1, 2, ... / `NOMINAL_FPS` of a clip.

    The timestamps start at 0 and increase; the last frame is shown for `gap_s`.

    >>> at_24_fps = [(number / 24, number) for number in range(12)]
    >>> list(nearest_frames(at_24_fps, 1 / 24))
    [0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 10, 11]
    """
    moment = 0
    for (time_s, frame), following in pairwise(chain(frames, [None])):
        if following:
            end_s = (time_s + following[0]) / 2 - TIE_S
        else:
            end_s = round((time_s + gap_s) * NOMINAL_FPS) / NOMINAL_FPS
        while moment / NOMINAL_FPS < end_s:
            yield frame
            moment += 1
