"""Which frames become images: counts, steps and moments by hand."""

from itertools import pairwise

import numpy as np
import pytest

from emotion.errors import UserError
from emotion.stacks.sampling import (
    interval_step,
    mend_times,
    nearest_frames,
    num_images,
    number_frames,
)


@pytest.mark.parametrize(
    ("segment_frames", "interval", "images"),
    [(90, 5, 18), (90, 10, 9), (90, 15, 6), (90, 1, 90), (90, 90, 1), (60, 4, 15)],
)
def test_a_stack_has_an_image_at_every_interval(segment_frames: int, interval: int, images: int):
    assert num_images(segment_frames, interval) == images
    assert len(range(0, segment_frames, interval)) == images


@pytest.mark.parametrize("interval", [7, 0, -5, 91, 180])
def test_interval_that_does_not_divide_the_segment_is_told_which_do(interval: int):
    with pytest.raises(UserError) as refusal:
        num_images(90, interval)
    message = str(refusal.value)
    assert "sampling.segment_frames=90" in message and f"got {interval};" in message
    assert message.endswith("1, 2, 3, 5, 6, 9, 10, 15, 18, 30, 45, 90")


@pytest.mark.parametrize(
    ("interval", "cached", "step"), [(5, 5, 1), (10, 5, 2), (15, 5, 3), (90, 15, 6), (3, 1, 3)]
)
def test_step_leads_from_one_image_of_an_interval_to_the_next(
    interval: int, cached: int, step: int
):
    assert interval_step(interval, cached, segment_frames=90) == step
    cached_frames = list(range(0, 90, cached))
    assert cached_frames[::step] == list(range(0, 90, interval))


@pytest.mark.parametrize(("interval", "cached"), [(3, 5), (18, 5), (5, 10), (1, 2)])
def test_interval_that_the_cache_lacks_is_told_the_command_that_makes_it(
    interval: int, cached: int
):
    with pytest.raises(UserError) as refusal:
        interval_step(interval, cached, segment_frames=90)
    message = str(refusal.value)
    assert f"sampling.interval={cached}" in message
    assert "preprocess.py" in message and f"sampling.interval={interval}" in message


def test_step_of_an_interval_that_does_not_divide_the_segment_is_refused_as_such():
    with pytest.raises(UserError, match=r"sampling\.segment_frames"):
        interval_step(20, 5, segment_frames=90)


# Moments


def moments(num: int) -> list[float]:
    return [number / 30 for number in range(num)]


def nearest_by_hand(times_s: list[float], moment_s: float) -> set[int]:
    """Give the frames nearest to a moment; two where it lies half-way between them."""
    distances = [abs(time_s - moment_s) for time_s in times_s]
    return {i for i, distance in enumerate(distances) if distance <= min(distances) + 2e-6}


@pytest.mark.parametrize("seed", range(30))
def test_each_moment_is_shown_by_the_frame_nearest_to_it(seed: int):
    rng = np.random.default_rng(seed)
    gaps = rng.choice([1e-4, 1 / 240, 1 / 60, 1 / 30, 1 / 24, 1 / 7, 1.3], size=rng.integers(1, 60))
    times_s = [0.0, *np.cumsum(gaps).tolist()]
    gap_s = float(rng.choice([1 / 24, 1 / 30, 1 / 60]))
    found = list(nearest_frames(zip(times_s, range(len(times_s)), strict=True), gap_s))
    assert len(found) == round((times_s[-1] + gap_s) * 30)
    for frame, moment_s in zip(found, moments(len(found)), strict=True):
        assert frame in nearest_by_hand(times_s, moment_s)


@pytest.mark.parametrize(
    ("fps", "num_frames", "num_moments"),
    [(24, 72, 90), (25, 75, 90), (30, 90, 90), (60, 180, 90), (15, 45, 90), (120, 360, 90),
     (30000 / 1001, 90, 90), (24000 / 1001, 72, 90), (30, 1, 1), (240, 1, 0)],
)  # fmt: skip
def test_a_clip_has_thirty_moments_a_second(fps: float, num_frames: int, num_moments: int):
    frames = [(number / fps, number) for number in range(num_frames)]
    assert len(list(number_frames(frames, "time", fps))) == num_moments


def test_frames_are_numbered_whatever_their_times_unless_time_is_asked_for():
    frames = [(7.0, "a"), (None, "b"), (3.0, "c"), (3.0, "d")]
    assert list(number_frames(frames, "frames", 24)) == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


def test_of_twice_the_frames_every_second_is_shown():
    frames = [(10 + number / 60, number) for number in range(180)]
    found = list(number_frames(frames, "time", 60))
    assert found == [(number, 2 * number) for number in range(90)]


def test_a_frame_that_is_held_stands_for_all_moments_until_half_way_to_the_next():
    frames = [(0.0, "a"), (1.0, "b"), (1.1, "c")]
    shown = "".join(frame for _, frame in number_frames(frames, "time", 10))
    # a to 0.5 s: moments 0 to 14; b to 1.05 s: 15 to 31; c to 1.2 s: 32 to 35
    assert shown == 15 * "a" + 17 * "b" + 4 * "c"


# Timestamps


def mended(times_s: list[float | None], gap_s: float = 0.1) -> list[float]:
    pairs = list(mend_times([(time_s, i) for i, time_s in enumerate(times_s)], gap_s))
    assert [frame for _, frame in pairs] == list(range(len(times_s)))  # all, in their order
    found = [time_s for time_s, _ in pairs]
    assert not found or found[0] == 0
    assert all(before < after for before, after in pairwise(found))
    return found


@pytest.mark.parametrize(
    ("times_s", "expected"),
    [
        ([], []),
        ([10.0], [0.0]),
        ([None], [0.0]),
        ([10.0, 10.1, 10.2], [0.0, 0.1, 0.2]),
        ([-0.1, 0.0, 0.1], [0.0, 0.1, 0.2]),
        # missing: one, two, at the end, all
        ([0.0, None, 0.2], [0.0, 0.1, 0.2]),
        ([0.0, None, None, 0.3], [0.0, 0.1, 0.2, 0.3]),
        ([5.0, 5.1, None], [0.0, 0.1, 0.2]),
        ([None] * 4, [0.0, 0.1, 0.2, 0.3]),
        # missing at the start of a clip whose clock does not start at 0
        ([None, 5.0, 5.1], [0.0, 0.1, 0.2]),
        ([None, None, 5.0, 5.1], [0.0, 0.1, 0.2, 0.3]),
        ([None, None, None, 50.0, 50.1], [0.0, 0.1, 0.2, 0.3, 0.4]),
        # one that is far off, either way, at the start, at the end
        ([0.0, 0.1, 7.0, 0.3], [0.0, 0.1, 0.2, 0.3]),
        ([0.0, 0.1, -7.0, 0.3], [0.0, 0.1, 0.2, 0.3]),
        ([9.0, 0.1, 0.2], [0.0, 0.1, 0.2]),
        ([0.0, 0.1, -9.0], [0.0, 0.1, 0.2]),
        ([0.0, 0.1, 3600.0], [0.0, 0.1, 0.2]),
        # one far back, where frames come faster than the header says
        ([2.0, 2.1, 2.2, 1.0, 2.24, 2.3], [0.0, 0.1, 0.2, 0.22, 0.24, 0.3]),
        # twice the same
        ([0.0, 0.1, 0.1, 0.2], [0.0, 0.1, 0.15, 0.2]),
        # a clock that starts anew, as where two recordings are joined, or jumps far ahead
        ([5.0, 5.1, 5.2, 0.0, 0.1], [0.0, 0.1, 0.2, 0.3, 0.4]),
        ([0.0, 0.1, 0.2, 900.0, 900.1], [0.0, 0.1, 0.2, 0.3, 0.4]),
        ([0.0, 900.0, 900.1, 5.0, 5.1], [0.0, 0.1, 0.2, 0.3, 0.4]),
        # a hold is no jump
        ([0.0, 0.1, 8.0, 8.1], [0.0, 0.1, 8.0, 8.1]),
        # a clock that stands still, for ever or for a while
        ([3.0, 3.0, 3.0, 3.0], [0.0, 0.1, 0.2, 0.3]),
        ([3.0, 3.1, 3.1, 3.1, 3.4, 3.5], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
    ],
)
def test_timestamps_are_mended(times_s: list, expected: list):
    assert mended(times_s) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(30))
def test_timestamps_in_order_stay_as_they_are(seed: int):
    rng = np.random.default_rng(seed)
    times_s = rng.uniform(-5, 500) + np.cumsum(rng.exponential(0.05, 200) + 1e-4)
    np.testing.assert_allclose(mended(times_s.tolist()), times_s - times_s[0], atol=1e-9)


@pytest.mark.parametrize("seed", range(30))
def test_a_bad_timestamp_among_good_ones_is_put_between_its_neighbours(seed: int):
    rng = np.random.default_rng(seed)
    true_s = np.cumsum(rng.uniform(0.01, 0.1, 120))
    bad = np.array([i for i in range(2, 119) if i % 3 == 0 and rng.random() < 0.7])
    times_s = true_s.tolist()
    for i in bad:
        times_s[i] = rng.choice([None, times_s[i - 1], times_s[i - 1] - 1, times_s[i] + 60, -1000])
    found, true_s = np.array(mended(times_s)), true_s - true_s[0]
    good = np.setdiff1d(np.arange(120), bad)
    np.testing.assert_allclose(found[good], true_s[good], atol=1e-9)
    np.testing.assert_allclose(found[bad], (found[bad - 1] + found[bad + 1]) / 2)


@pytest.mark.parametrize("seed", range(30))
def test_any_timestamps_become_increasing_ones(seed: int):
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, rng.choice([0.01, 1, 100]), 300).tolist()
    mended([None if rng.random() < 0.2 else time_s for time_s in noise])
