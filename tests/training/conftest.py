"""Fixtures of this wing: train.py, called in this process on two synthetic clips per class."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

SMALL = [
    *("experiment=smoke", "interval=15", "logger=none"),
    "model.backbone=mobilenetv3_small_050",
]


@pytest.fixture
def run_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, demo_cache) -> Callable[..., Path]:
    """Return a function that calls train.py and returns its output folder."""
    from emotion.commands.train import train

    def run(*arguments: str) -> Path:
        paths = [f"paths.cache={demo_cache.directory.parents[1]}", f"paths.output={tmp_path}"]
        given = {argument.partition("=")[0] for argument in arguments}
        small = [default for default in SMALL if default.partition("=")[0] not in given]
        monkeypatch.setattr("sys.argv", ["train.py", *small, *arguments, *paths])
        train()
        return tmp_path

    return run


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that calls another one, whose training stops before an epoch.

    A sweep (`raises=False`) records the error of the cell.
    """
    from emotion.training.callbacks import SeededEpochs

    def call(task: Callable[[], object], epoch: int, *, raises: bool = True) -> None:
        seed_epoch = SeededEpochs.on_train_epoch_start

        def stop(self, trainer, module):
            if trainer.current_epoch == epoch:
                raise InterruptedError("a test stops training here")
            seed_epoch(self, trainer, module)

        with monkeypatch.context() as patch:
            patch.setattr(SeededEpochs, "on_train_epoch_start", stop)
            with pytest.raises(InterruptedError) if raises else nullcontext():
                task()

    return call
