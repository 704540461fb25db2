"""What a finished run is read back as, against what train.py's own data module gives."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from emotion.data.datamodule import StackDataModule
from emotion.errors import UserError
from emotion.stacks.cache import Cache
from emotion.training.finished_run import Run, spread


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    """A run's folder that a test may damage."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


def test_stacks_are_those_of_training(finished_run: Path, demo_cache: Cache):
    run = Run.read(finished_run)
    datamodule = StackDataModule(
        demo_cache, 15, None, labels=demo_cache.scheme.labels, batch_size=10, image_px=64
    )
    datamodule.setup()
    for split in ("train", "val", "test"):
        rows = run.rows(split)
        assert [row.stack for row in rows] == [row.stack for row in datamodule.rows[split]]
        ((expected, _),) = datamodule.evaluation_dataloader(split)
        actual = run.inputs(rows)
        assert actual.dtype == np.uint8
        np.testing.assert_array_equal(actual, expected.numpy())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "metrics.json").unlink(), "give the folder of one finished run"),
        (lambda run: (run / "metrics.json").write_text("{"), "metrics.json can't be read"),
        (
            lambda run: (run / "metrics.json").write_text('{"status": "failed"}'),
            "has not come to its end",
        ),
        (
            lambda run: (run / "metrics.json").write_text('{"status": "finished"}'),
            "of an older version, without calibration",
        ),
        (lambda run: (run / "recipe.json").unlink(), "no recipe.json in"),
    ],
)
def test_a_folder_without_a_finished_run_is_told(copied: Path, damage, message: str):
    damage(copied)
    with pytest.raises(UserError, match=re.escape(message)):
        Run.read(copied)


def test_a_run_without_its_config_is_told(copied: Path):
    (copied / ".hydra" / "config.yaml").unlink()
    with pytest.raises(UserError, match="does not say where the run's stacks are"):
        Run.read(copied).rows("val")


def test_a_recipe_of_another_run_is_told(copied: Path):
    recipe = json.loads((copied / "recipe.json").read_text())
    recipe["settings"]["margin"] = 0.5
    (copied / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(UserError, match=r"recipe\.json beside it are not of the same run"):
        Run.read(copied).rows("val")


def test_a_stack_that_is_gone_is_named(copied: Path):
    path = copied / "predictions.csv"
    path.write_text(path.read_text().replace("Happy_0001", "Happy_9999"))
    with pytest.raises(UserError, match="no segment 1 of clip Happy_9999 any more"):
        Run.read(copied).rows("val")


def test_a_few_rows_are_taken_from_all_over():
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert spread(range(3), 4) == [0, 1, 2]
    assert spread(range(100), 1) == [0]
