"""clips ──cut──> segments, and which of their frames become images: pure arithmetic.

The second step of the way of the data. Frames are numbered from 0 in the whole clip; a segment is
`segment_frames` of them, the last one what is left. An image is taken at every frame whose number
is a multiple of the interval, which divides the segment, so that all segments are sampled alike.
"""

from emotion.errors import UserError


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
