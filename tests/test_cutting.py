"""Cutting one clip: what settings name, which clips are cut again, and what a broken one costs."""

from collections.abc import Callable

from omegaconf import OmegaConf

from emotion.cache import Cache


def another(value: float | str | bool) -> float | str | bool:
    """Give another legal value of a setting: `sampled` -> `none`, 5 -> 10 and so on."""
    others = {
        "sampled": "none", "clip": "first_face", "frames": "time", "largest": "central",
        90: 180, 75: 80, False: True,
    }  # fmt: skip
    if value in others:
        return others[value]
    assert not isinstance(value, str), value
    return 2 * value if isinstance(value, int) else value / 2


def test_every_setting_that_shapes_stacks_is_in_the_caches_path(compose: Callable):
    standard = compose("preprocess", ["data=demo"])
    keys = ["data.min_frames"]
    keys += [f"{section}.{key}" for section in ("sampling", "face") for key in standard[section]]
    assert len(keys) == 12
    folders = {Cache.from_config(standard).directory}
    for key in keys:
        value = another(OmegaConf.select(standard, key))
        assert value != OmegaConf.select(standard, key)
        folders.add(
            Cache.from_config(compose("preprocess", ["data=demo", f"{key}={value}"])).directory
        )
    assert len(folders) == 1 + len(keys)
