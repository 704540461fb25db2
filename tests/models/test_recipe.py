"""Recipes: exact round trips, and errors for foreign or damaged files."""

import json
import re
from dataclasses import replace
from importlib.metadata import version

import pytest

from emotion.errors import UserError
from emotion.models.recipe import Recipe, package_versions
from tests.stacks.standard import STANDARD

RECIPE = Recipe(
    title="MobileNetV3-Large",
    data="demo (rendered faces)",
    labels=["Anger", "Fröhlich"],
    # 0.1 + 0.2 needs all digits of a float64
    settings=replace(STANDARD, by="time", min_face_fraction=0.1 + 0.2),
    interval=15,
    image_px=96,
    versions={"av": "17.1.0"},
    temperature=1.0 / 3.0,
    unsure_below=0.45,
)


def test_round_trip_through_a_file(tmp_path):
    RECIPE.write(tmp_path / "run" / "recipe.json")
    assert Recipe.read(tmp_path / "run" / "recipe.json") == RECIPE
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.json"]


def test_the_file_has_no_derived_values():
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
    ("text", "key"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ("[1, 2]", "object"),
        ('{"a": 1}', "title"),
        (damaged(lambda v: v.update(version=1, format=1, landmarks=False)), "version"),
        (damaged(lambda v: v.update(colour="red")), "colour"),
        (damaged(lambda v: v.pop("labels")), "labels"),
        (damaged(lambda v: v.pop("settings")), "settings"),
        (damaged(lambda v: v["settings"].pop("margin")), r"settings\.margin"),
        (damaged(lambda v: v["settings"].update(align=1)), r"settings\.align"),
        (damaged(lambda v: v["settings"].update(by="day")), r"settings\.by"),
        (damaged(lambda v: v["settings"].update(size_px=True)), r"settings\.size_px"),
        (damaged(lambda v: v["settings"].update(min_frames=91)), "min_frames"),
        (damaged(lambda v: v["settings"].update(segment_frames=10**9)), "segment_frames"),
        (damaged(lambda v: v.update(image_px=10**6)), "pixels"),
        (damaged(lambda v: v.update(interval=7)), "interval"),
        (damaged(lambda v: v.update(interval="5")), "interval"),
        (damaged(lambda v: v.update(labels="Anger")), "labels"),
        (damaged(lambda v: v.update(labels=[])), "labels"),
        (damaged(lambda v: v.update(labels=["a", "a"])), "labels"),
        (damaged(lambda v: v.update(versions={"av": 17})), r"versions\.av"),
        (damaged(lambda v: v.update(temperature=0)), "temperature"),
        (damaged(lambda v: v.update(temperature=float("nan"))), "temperature"),
        (damaged(lambda v: v.update(unsure_below=1.5)), "unsure_below"),
        (damaged(lambda v: v.update(image_px=0)), "image_px"),
        (damaged(lambda v: v.update(inputs="faces")), "inputs"),
    ],
)
def test_errors_of_foreign_or_damaged_recipes_name_the_key(text, key):
    with pytest.raises(UserError, match=rf"^some/recipe\.json: .*\b{key}\b") as caught:
        Recipe.from_json(text, "some/recipe.json")
    assert "\n" not in str(caught.value)


def test_errors_of_unreadable_files_name_the_file(tmp_path):
    path = tmp_path / "recipe.json"
    with pytest.raises(UserError, match=re.escape(str(path))):
        Recipe.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=re.escape(str(path))):
        Recipe.read(path)


def test_changed_packages():
    here = package_versions()
    assert here["av"] == version("av") and here["torch"] == version("torch")
    assert RECIPE.model_copy(update={"versions": here}).changed_packages() == []
    other = RECIPE.model_copy(update={"versions": {**here, "mediapipe": "0.8.0", "torch": "1.0"}})
    assert other.changed_packages() == [f"mediapipe {version('mediapipe')} instead of 0.8.0"]


def test_round_trip_of_floats_and_inputs(tmp_path):
    changed = {"temperature": 1 / 3, "inputs": "landmarks"}
    recipe = RECIPE.model_copy(update=changed)
    recipe.write(tmp_path / "recipe.json")
    assert Recipe.read(tmp_path / "recipe.json") == recipe
