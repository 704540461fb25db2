"""Which frames become images: counts and steps by hand."""

import pytest

from emotion.errors import UserError
from emotion.sampling import interval_step, num_images


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
    assert f"interval of {interval} frames" in message
    assert "sampling.segment_frames" in message
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
    assert f"every {cached} frames" in message
    assert f"python preprocess.py sampling.interval={interval}" in message


def test_step_of_an_interval_that_does_not_divide_the_segment_is_refused_as_such():
    with pytest.raises(UserError, match=r"interval of 20 frames does not divide"):
        interval_step(20, 5, segment_frames=90)
