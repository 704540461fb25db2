"""Augmentation against other libraries and plain arithmetic, and its seeds.

The affine map of a stack is measured from its result: the images are ramps of their own x and y, so
that each pixel of the result contains the coordinates it came from.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from emotion.data.augmentation import Augmentation

HEIGHT, WIDTH = 96, 128
CENTER = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
SEEDS = range(40)
ORIGINAL_RANGES = {  # seed.md: Augmentation
    "flip": 0.5,
    "rotation_deg": 30,
    "shift": 0.2,
    "scale_min": 0.75,
    "scale_max": 1.05,
    "blur_sigma_min": 0.1,
    "blur_sigma_max": 1.0,
    "erase": 0.2,
    "erase_area_min": 0.02,
    "erase_area_max": 0.1,
}


@pytest.fixture(scope="module")
def options(compose: Callable) -> dict[str, Augmentation]:
    """Return the augmentations of `conf/augmentation` that the tests use."""
    return {
        option: instantiate(compose("train", [f"augmentation={option}"]).augmentation)
        for option in ("none", "original", "strong")
    }


def vary(augmentation: Augmentation, stack: np.ndarray, seed: int = 0) -> np.ndarray:
    return augmentation(stack, np.random.default_rng(seed))


def random_stack(height: int = 64, width: int = 64, num_images: int = 18) -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (height, width, num_images), np.uint8)


@cache
def smooth_picture() -> np.ndarray:
    noise = np.random.default_rng(3).random((6, 8), np.float32)
    return (255 * cv2.resize(noise, (WIDTH, HEIGHT))).astype(np.uint8)


@cache
def ramps() -> np.ndarray:
    """Make a stack of a picture, of white, and of 8 ramps each of x and of y, (96, 128, 18).

    The 8 images add up to sixteenths of a pixel: the first rises from 0 to 255 over the first
    pixels, the second continues from there, and so on.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH][..., None] * np.ones(8, int)
    climbs = [np.clip(16 * place - 255 * np.arange(8), 0, 255) for place in (x, y)]
    white = np.full((HEIGHT, WIDTH), 255)
    return np.dstack([smooth_picture(), white, *climbs]).astype(np.uint8)


def measure(varied: np.ndarray) -> tuple[bool, float, float, np.ndarray]:
    """Fit the affine map that was applied to `ramps()` by least squares.

    Returns:
        Whether flipped; degrees, counted from x to y; scale; shift of the center in pixels.
    """
    covered = (varied[..., 1] == 255).astype(np.uint8)
    inside = cv2.erode(covered, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    v, u = np.nonzero(inside)
    places = np.c_[u, v, np.ones_like(u)]
    came_from = varied[inside][:, 2:].reshape(-1, 2, 8).sum(axis=2) / 16  # x, y
    fit, *_ = np.linalg.lstsq(places, came_from, rcond=None)
    assert np.abs(places @ fit - came_from).max() < 0.15  # the map is affine
    linear = np.linalg.inv(fit[:2].T)
    shift = linear @ (CENTER - fit[2]) - CENTER
    flipped = np.linalg.det(linear) < 0
    linear = linear @ np.diag([-1 if flipped else 1, 1])
    scale = np.sqrt(np.linalg.det(linear))
    np.testing.assert_allclose(linear @ linear.T, scale**2 * np.eye(2), atol=0.002)  # no shear
    return flipped, np.rad2deg(np.arctan2(linear[1, 0], linear[0, 0])), scale, shift


def test_none_returns_the_stack_unchanged(options: dict):
    augmentation = options["none"]
    stack = random_stack()
    for seed in SEEDS:
        np.testing.assert_array_equal(vary(augmentation, stack, seed), stack)


def test_flip_mirrors_left_and_right():
    stack = random_stack(48, 65)
    np.testing.assert_array_equal(vary(Augmentation(flip=1.0), stack), np.flip(stack, axis=1))


def test_flip_has_its_probability():
    stack = random_stack(8, 8, 1)
    generator = np.random.default_rng(0)
    augmentation = Augmentation(flip=0.3)
    flips = [not np.array_equal(augmentation(stack, generator), stack) for _ in range(2000)]
    assert np.mean(flips) == pytest.approx(0.3, abs=0.04)


def test_rotation_about_the_center_covers_its_range():
    angles = []
    for seed in SEEDS:
        flipped, angle, scale, shift = measure(vary(Augmentation(rotation_deg=30), ramps(), seed))
        assert not flipped
        assert scale == pytest.approx(1, abs=0.001)
        np.testing.assert_allclose(shift, 0, atol=0.05)
        angles.append(angle)
    assert -30.01 < min(angles) < -20 and 20 < max(angles) < 30.01


@pytest.mark.parametrize("seed", range(4))
def test_rotation_equals_opencvs(seed: int):
    varied = vary(Augmentation(rotation_deg=30), ramps(), seed)
    _, angle, _, _ = measure(varied)
    matrix = cv2.getRotationMatrix2D(CENTER, -angle, 1.0)  # OpenCV counts from y to x
    expected = cv2.warpAffine(ramps(), matrix, (WIDTH, HEIGHT))
    assert np.abs(varied.astype(float) - expected).mean() < 0.5


def test_shift_covers_its_fraction_of_height_and_width():
    shifts = []
    for seed in SEEDS:
        flipped, angle, scale, shift = measure(vary(Augmentation(shift=0.2), ramps(), seed))
        assert not flipped
        assert angle == pytest.approx(0, abs=0.02)
        assert scale == pytest.approx(1, abs=0.001)
        shifts.append(shift / (WIDTH, HEIGHT))
    low, high = np.min(shifts, axis=0), np.max(shifts, axis=0)
    assert (low > -0.201).all() and (low < -0.14).all()
    assert (high > 0.14).all() and (high < 0.201).all()
    assert abs(np.corrcoef(np.transpose(shifts))[0, 1]) < 0.5  # each axis has its own shift


def test_scale_about_the_center_covers_its_range():
    scales = []
    for seed in SEEDS:
        augmentation = Augmentation(scale_min=0.75, scale_max=1.05)
        flipped, angle, scale, shift = measure(vary(augmentation, ramps(), seed))
        assert not flipped
        assert angle == pytest.approx(0, abs=0.02)
        np.testing.assert_allclose(shift, 0, atol=0.05)
        scales.append(scale)
    assert 0.749 < min(scales) < 0.8 and 1.0 < max(scales) < 1.051


@pytest.mark.parametrize("seed", range(8))
def test_flip_and_affine_map_equal_torchvisions(seed: int):
    augmentation = Augmentation(
        flip=0.5, rotation_deg=30, shift=0.2, scale_min=0.75, scale_max=1.05
    )
    varied = vary(augmentation, ramps(), seed)
    flipped, angle, scale, shift = measure(varied)
    # torchvision shifts by whole pixels only; `rest` is the remaining shift.
    whole = np.round(shift)
    rest = np.array([[1, 0, shift[0] - whole[0]], [0, 1, shift[1] - whole[1]]])
    picture = torch.from_numpy(smooth_picture().astype(np.float32))[None]
    if flipped:
        picture = tv.hflip(picture)
    expected = tv.affine(
        picture,
        angle=angle,
        translate=whole.astype(int).tolist(),
        scale=scale,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    expected = cv2.warpAffine(expected[0].numpy(), rest, (WIDTH, HEIGHT))
    inside = cv2.erode(varied[..., 1], np.ones((7, 7))) == 255
    inside[:4] = inside[-4:] = inside[:, :4] = inside[:, -4:] = False
    assert inside.mean() > 0.3
    assert np.abs(varied[..., 0] - expected)[inside].mean() < 1
    assert np.abs(expected - smooth_picture())[inside].mean() > 10  # the picture has changed


def test_pixels_from_outside_the_image_are_black():
    varied = vary(Augmentation(scale_min=0.5, scale_max=0.5), np.full((40, 40, 3), 200, np.uint8))
    assert (varied[:9] == 0).all() and (varied[:, -9:] == 0).all()
    assert (varied[12:28, 12:28] == 200).all()


@pytest.mark.parametrize("sigma", [0.4, 1.0])
def test_blur_is_a_gaussian_with_a_kernel_of_3(sigma: float):
    stack = random_stack(32, 40, 5)
    augmentation = Augmentation(blur=1.0, blur_sigma_min=sigma, blur_sigma_max=sigma)
    weights = np.exp(-(np.array([-1, 0, 1]) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    padded = stack.astype(float)
    rows = sum(w * padded[i : i + 30] for i, w in enumerate(weights))
    expected = sum(w * rows[:, i : i + 38] for i, w in enumerate(weights))
    np.testing.assert_allclose(vary(augmentation, stack)[1:-1, 1:-1], expected, atol=1.5)


def test_blur_has_its_probability_and_range_of_sigmas():
    point = np.zeros((5, 5, 1), np.uint8)
    point[2, 2] = 255
    generator = np.random.default_rng(0)
    augmentation = Augmentation(blur=0.5, blur_sigma_min=0.5, blur_sigma_max=1.0)
    peaks = [int(augmentation(point, generator)[2, 2, 0]) for _ in range(1000)]
    blurred = [peak for peak in peaks if peak < 255]
    assert len(blurred) == pytest.approx(500, abs=60)
    # The middle weight is 1 / (1 + 2 exp(-1 / (2 sigma^2))), squared for two axes.
    at = {s: 255 / (1 + 2 * np.exp(-1 / (2 * s**2))) ** 2 for s in (0.5, 1.0)}
    assert at[1.0] - 2 < min(blurred) < at[1.0] + 5
    assert at[0.5] - 10 < max(blurred) < at[0.5] + 2


def rectangles(augmentation: Augmentation, seeds: range) -> list[tuple[int, int, int, int]]:
    """Erase in white stacks; return top, left, height and width of each black rectangle."""
    found = []
    for seed in seeds:
        varied = vary(augmentation, np.full((HEIGHT, WIDTH, 2), 255, np.uint8), seed)
        rows, columns = np.nonzero(varied[..., 0] == 0)
        top, left = rows.min(), columns.min()
        tall, wide = rows.max() + 1 - top, columns.max() + 1 - left
        expected = np.full_like(varied, 255)
        expected[top : top + tall, left : left + wide] = 0
        np.testing.assert_array_equal(varied, expected)
        found.append((top, left, tall, wide))
    return found


def test_erased_rectangles_have_the_configured_area_and_ratio():
    augmentation = Augmentation(erase=1.0, erase_area_min=0.02, erase_area_max=0.1)
    areas, ratios = [], []
    for _, _, tall, wide in rectangles(augmentation, range(200)):
        # Sides are rounded to whole pixels.
        assert (tall + 0.5) * (wide + 0.5) >= 0.02 * HEIGHT * WIDTH
        assert (tall - 0.5) * (wide - 0.5) <= 0.1 * HEIGHT * WIDTH
        assert (tall + 0.5) / (wide - 0.5) >= 0.3
        assert (tall - 0.5) / (wide + 0.5) <= 3.3
        areas.append(tall * wide / (HEIGHT * WIDTH))
        ratios.append(tall / wide)
    assert min(areas) < 0.03 and max(areas) > 0.09
    assert min(ratios) < 0.4 and max(ratios) > 2.5
    assert np.median(ratios) == pytest.approx(1, abs=0.25)  # tall as often as wide


def test_erasing_reaches_every_part_of_the_image():
    places = np.array(rectangles(Augmentation(erase=1.0), range(200)))
    top, left, tall, wide = places.T
    assert (top / (HEIGHT - tall)).min() < 0.05 and (top / (HEIGHT - tall)).max() > 0.95
    assert (left / (WIDTH - wide)).min() < 0.05 and (left / (WIDTH - wide)).max() > 0.95


def test_erasing_has_its_probability():
    stack = np.full((16, 16, 1), 255, np.uint8)
    generator = np.random.default_rng(0)
    augmentation = Augmentation(erase=0.2)
    erased = [(augmentation(stack, generator) == 0).any() for _ in range(2000)]
    assert np.mean(erased) == pytest.approx(0.2, abs=0.04)


def test_erasing_keeps_pixels_outside_the_rectangle():
    stack = random_stack(64, 48)
    stack[stack == 0] = 1
    varied = vary(Augmentation(erase=1.0), stack)
    black = varied == 0
    assert black.any() and not black.all()
    np.testing.assert_array_equal(varied[~black], stack[~black])


def test_contrast_is_linear_around_mid_gray():
    levels = np.tile(np.arange(256, dtype=np.uint8), (8, 1))[..., None].repeat(3, axis=2)
    gains = []
    for seed in SEEDS:
        varied = vary(Augmentation(contrast=0.4), levels, seed).astype(float)
        gain = (varied[0, 160, 0] - varied[0, 96, 0]) / 64
        expected = (gain * (np.arange(256) - 127.5) + 127.5).clip(0, 255)
        np.testing.assert_allclose(varied[5, :, 1], expected, atol=3)
        gains.append(gain)
    assert 0.58 < min(gains) < 0.7 and 1.3 < max(gains) < 1.42


def test_brightness_adds_one_offset_and_clips():
    levels = np.tile(np.arange(256, dtype=np.uint8), (8, 1))[..., None].repeat(3, axis=2)
    added = []
    for seed in SEEDS:
        varied = vary(Augmentation(brightness=0.2), levels, seed).astype(float)
        offset = varied[0, 128, 0] - 128
        np.testing.assert_allclose(varied[3, :, 2], (np.arange(256) + offset).clip(0, 255), atol=1)
        added.append(offset / 255)
    assert -0.21 < min(added) < -0.12 and 0.12 < max(added) < 0.21


@pytest.mark.parametrize("option", ["original", "strong"])
def test_all_images_of_a_stack_get_the_same_augmentation(options: dict, option: str):
    augmentation = options[option]
    picture = random_stack(40, 40, 1)
    for seed in SEEDS:
        varied = vary(augmentation, picture.repeat(18, axis=2), seed)
        assert (varied == varied[..., :1]).all()


@pytest.mark.parametrize("option", ["none", "original", "strong"])
@pytest.mark.parametrize("num_images", [1, 2, 3, 4, 6, 9, 18, 90])
def test_shape_and_dtype_are_kept_and_the_input_is_not_modified(
    options: dict, option: str, num_images: int
):
    augmentation = options[option]
    stack = random_stack(24, 32, num_images)
    before = stack.copy()
    for seed in SEEDS:
        varied = vary(augmentation, stack, seed)
        assert varied.shape == (24, 32, num_images)
        assert varied.dtype == np.uint8
        assert not np.shares_memory(varied, stack)
    np.testing.assert_array_equal(stack, before)


@pytest.mark.parametrize("num_images", [1, 18])
def test_augmentation_does_not_depend_on_the_number_of_images(options: dict, num_images: int):
    augmentation = options["strong"]
    stack = random_stack(40, 40, 18)
    for seed in SEEDS:
        alone = vary(augmentation, stack[..., :num_images], seed)
        np.testing.assert_array_equal(alone, vary(augmentation, stack, seed)[..., :num_images])


def test_result_depends_on_the_generator_alone(options: dict):
    augmentation = options["original"]
    stack = random_stack()
    first = [vary(augmentation, stack, seed) for seed in range(10)]
    np.random.seed(1)  # noqa: NPY002  other generators have no effect
    cv2.setRNGSeed(1)
    torch.manual_seed(1)
    again = [vary(augmentation, stack, seed) for seed in range(10)]
    np.testing.assert_array_equal(first, again)
    assert len({varied.tobytes() for varied in first}) == 10
    generator = np.random.default_rng(0)
    assert not np.array_equal(augmentation(stack, generator), augmentation(stack, generator))


def test_seed_config_has_the_seed_projects_values(options: dict):
    augmentation = asdict(options["original"])
    assert {key: augmentation[key] for key in ORIGINAL_RANGES} == ORIGINAL_RANGES
    assert augmentation["blur"] == 1.0  # the seed blurs every stack
    assert augmentation["erase_ratio"] == pytest.approx(3.3)  # and 1 / 3.3 = 0.303 for its 0.3
    assert augmentation["contrast"] == augmentation["brightness"] == 0


def test_default_augmentation_is_the_seed_projects(compose: Callable, options: dict):
    assert instantiate(compose("train").augmentation) == options["original"]


def test_strength_0_keeps_only_the_flip():
    still = Augmentation(
        flip=0.5, rotation_deg=30, shift=0.2, scale_min=0.7, scale_max=1.2, blur=1.0, erase=1.0,
        contrast=0.4, brightness=0.2, strength=0.0,
    )  # fmt: skip
    stack = ramps()
    seen = set()
    for seed in SEEDS:
        varied = vary(still, stack, seed)
        (flipped,) = (
            name for name, same in ((False, stack), (True, np.flip(stack, axis=1)))
            if np.array_equal(varied, same)
        )  # fmt: skip
        seen.add(flipped)
    assert seen == {False, True}


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_strength_scales_the_ranges(strength: float):
    augmentation = Augmentation(
        rotation_deg=10, shift=0.05, scale_min=0.8, scale_max=1.1, strength=strength
    )
    drawn = [measure(vary(augmentation, ramps(), seed)) for seed in SEEDS]
    _, angles, scales, shifts = map(np.array, zip(*drawn, strict=True))
    assert 0.85 * 10 * strength < np.abs(angles).max() < 1.01 * 10 * strength
    assert 0.85 * 0.05 * strength < np.abs(shifts / (WIDTH, HEIGHT)).max() < 1.01 * 0.05 * strength
    assert 0.99 * 0.8**strength < scales.min() < 0.8 ** (0.7 * strength)
    assert 1.1 ** (0.7 * strength) < scales.max() < 1.01 * 1.1**strength
