"""A finished run is read back as train.py's own data module has it; a foreign one runs no code."""

import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emotion.data.datamodule import StackDataModule
from emotion.errors import DamagedFile, UserError
from emotion.files import file_digest
from emotion.training.finished_run import Run
from emotion.training.record import read_record, write_record


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    """A run's folder that a test may damage."""
    return shutil.copytree(finished_run, tmp_path / "run")


def change_record(run: Path, **values) -> None:
    record = read_record(run)
    write_record(run, record.model_copy(update=values))


def test_stacks_are_those_of_training(finished_run: Path, demo_cache):
    run = Run.read(finished_run)
    datamodule = StackDataModule(
        demo_cache, 15, None, labels=run.recipe.labels, batch_size=10, image_px=64
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
    ("damage", "file"),
    [
        (lambda run: (run / "metrics.json").unlink(), "metrics.json"),
        (lambda run: (run / "metrics.json").write_text("{"), "metrics.json"),
        (lambda run: change_record(run, status="failed"), "metrics.json"),
        (lambda run: change_record(run, version=1), "version"),
        (lambda run: (run / "recipe.json").unlink(), "recipe.json"),
        (lambda run: (run / "recipe.json").write_text("{}"), "recipe.json"),
    ],
)
def test_a_folder_without_a_finished_run_is_an_error(
    copied: Path, damage: Callable[[Path], object], file: str
):
    damage(copied)
    with pytest.raises(UserError, match=re.escape(file)):
        Run.read(copied)


def test_nothing_of_a_foreign_config_is_instantiated_or_resolved(copied: Path, tmp_path: Path):
    trap = f"{tmp_path}/sprung"
    (copied / ".hydra").mkdir(exist_ok=True)
    (copied / ".hydra" / "config.yaml").write_text(
        f"executor: {{_target_: os.system, command: touch {trap}}}\n"
        f"data: {{_target_: pathlib.Path.touch, self: {trap}, root: '${{oc.env:HOME}}'}}\n"
    )

    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (Path(trap),)

    for name in ("config.pickle", "overrides.yaml"):
        (copied / ".hydra" / name).write_bytes(pickle.dumps(Trap()))
    built = "emotion.stacks.build" in sys.modules
    run = Run.read(copied)
    assert run.rows("val") and run.inputs(run.rows("test")[:1]).shape == (1, 6, 64, 64)
    assert not Path(trap).exists()
    assert built or "emotion.stacks.build" not in sys.modules


def test_predictions_of_another_run_are_an_error(copied: Path):
    path = copied / "predictions.csv"
    path.write_text(path.read_text().replace("Happy_0001", "Happy_9999"))
    with pytest.raises(DamagedFile, match=r"predictions\.csv"):
        read_record(copied).predictions(copied)


@pytest.mark.parametrize("values", [{"cache": "/nowhere"}, {"manifest_sha256": "0" * 64}])
def test_stacks_that_are_gone_or_changed_are_an_error_with_the_command(copied: Path, values: dict):
    change_record(copied, **values)
    with pytest.raises(UserError, match=r"python preprocess\.py data=demo") as caught:
        Run.read(copied).rows("val")
    assert "\n" not in str(caught.value)


def test_a_predicted_stack_that_is_not_in_the_cache_is_named(copied: Path):
    path = copied / "predictions.csv"
    path.write_text(path.read_text().replace("Happy_0001", "Happy_9999"))
    files = read_record(copied).files | {path.name: file_digest(path)}
    change_record(copied, files=files)
    with pytest.raises(UserError, match="Happy_9999"):
        Run.read(copied).rows("val")
