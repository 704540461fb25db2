"""The recipe: what prediction knows of a model survives its file, and nothing else gets through."""

import json
import re
from dataclasses import replace
from importlib.metadata import version

import pytest

from emotion.errors import UserError
from emotion.models.recipe import Recipe, package_versions
from emotion.stacks.cutter import CacheSettings

SETTINGS = CacheSettings(
    min_frames=75,
    segment_frames=90,
    interval=5,
    by="time",
    start="first_face",
    min_face_fraction=0.1 + 0.2,  # a number that needs all its digits
    tracking="sampled",
    follow="central",
    margin=0.1,
    align=True,
    size_px=224,
    min_confidence=0.5,
)
RECIPE = Recipe(
    title="MobileNetV3-Large",
    data="demo (rendered faces)",
    labels=["Anger", "Fröhlich"],
    settings=SETTINGS,
    interval=15,
    image_px=96,
    versions={"av": "17.1.0"},
    temperature=1.0 / 3.0,
    unsure_below=0.45,
)


def test_it_survives_its_file(tmp_path):
    RECIPE.write(tmp_path / "run" / "recipe.json")
    assert Recipe.read(tmp_path / "run" / "recipe.json") == RECIPE
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.json"]


def test_every_fact_stands_once_in_the_file():
    written = json.loads(RECIPE.to_json())
    assert (written["interval"], written["settings"]["interval"]) == (15, 5)
    assert written["labels"] == ["Anger", "Fröhlich"]
    assert "num_images" not in written
    assert (RECIPE.num_images, RECIPE.step) == (6, 3)


def damaged(change):
    values = json.loads(RECIPE.to_json())
    change(values)
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        ("[1, 2]", "it has no format"),
        ('{"a": 1}', "it has no format"),
        (damaged(lambda v: v.update(format=2)), "its format is 2, and this version reads 1"),
        (damaged(lambda v: v.update(colour="red")), "unknown key colour"),
        (damaged(lambda v: v.pop("labels")), "labels is missing"),
        (damaged(lambda v: v.pop("temperature")), "temperature is missing"),
        (damaged(lambda v: v.pop("settings")), "settings is no mapping"),
        (damaged(lambda v: v["settings"].pop("margin")), "settings.margin is missing"),
        (damaged(lambda v: v["settings"].update(x=1)), "unknown key settings.x"),
        (damaged(lambda v: v["settings"].update(align=1)), "settings.align is 1, of another type"),
        (damaged(lambda v: v["settings"].update(by="day")), "sampling.by=day"),
        (damaged(lambda v: v["settings"].update(size_px=True)), "settings.size_px is true"),
        (damaged(lambda v: v.update(interval=7)), "does not divide"),
        (damaged(lambda v: v.update(interval="5")), 'interval is "5", of another type'),
        (damaged(lambda v: v.update(labels="Anger")), 'labels is "Anger", of another type'),
        (damaged(lambda v: v.update(labels=[])), "labels [] are none"),
        (damaged(lambda v: v.update(labels=["a", "a"])), "one of them twice"),
        (damaged(lambda v: v.update(versions={"av": 17})), "versions is"),
        (damaged(lambda v: v.update(temperature=0)), "temperature 0 is not above 0"),
        (damaged(lambda v: v.update(temperature=float("nan"))), "temperature nan is not"),
        (damaged(lambda v: v.update(unsure_below=1.5)), "unsure_below 1.5 is no probability"),
        (damaged(lambda v: v.update(image_px=0)), "image_px 0 is below 1"),
        (damaged(lambda v: v.update(neutral=[1.0])), "neutral has 1 logits for 2 labels"),
        (damaged(lambda v: v.update(neutral=["a", "b"])), 'neutral is ["a", "b"], of another'),
        (damaged(lambda v: v.update(neutral=[float("nan")] * 2)), "has what is no number"),
        (damaged(lambda v: v.update(landmarks=1)), "landmarks is 1, of another type"),
    ],
)
def test_what_is_foreign_or_damaged_is_told_in_a_line(text, reason):
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        Recipe.from_json(text, "recipe.json")
    assert str(caught.value).startswith("recipe.json is no recipe of ours, or damaged: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cant_be_read_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no recipe\.json in .*: train\.py puts it"):
        Recipe.read(tmp_path / "recipe.json")
    (tmp_path / "recipe.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="can't be read"):
        Recipe.read(tmp_path / "recipe.json")


def test_packages_that_may_change_crops_are_compared():
    here = package_versions()
    assert here["av"] == version("av") and here["torch"] == version("torch")
    assert replace(RECIPE, versions=here).changed_packages() == []
    other = replace(RECIPE, versions={**here, "mediapipe": "0.8.0", "torch": "1.0"})
    assert other.changed_packages() == [f"mediapipe {version('mediapipe')} instead of 0.8.0"]


def test_a_file_of_an_older_version_is_read_as_what_it_was():
    def older(values: dict) -> None:
        del values["landmarks"], values["neutral"]
        del values["settings"]["refine"], values["settings"]["fit"]

    assert Recipe.from_json(damaged(older), "recipe.json") == RECIPE
    assert (RECIPE.landmarks, RECIPE.neutral, RECIPE.settings.refine) == (False, (), False)


def test_what_the_model_makes_of_neutral_survives_too(tmp_path):
    recipe = replace(RECIPE, neutral=[-1 / 3, -2.5], landmarks=True)
    recipe.write(tmp_path / "recipe.json")
    assert Recipe.read(tmp_path / "recipe.json") == recipe
