"""Resuming after an interruption gives the curves and scores of an undisturbed run."""

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emotion import REPOSITORY
from emotion.errors import DamagedFile, UserError
from emotion.files import file_digest
from emotion.models.lightning_module import EmotionModule
from emotion.training import checkpoint
from emotion.training.checkpoint import (
    STATE_OF_TRAINING,
    WholeCheckpoints,
    best_beside,
    load_checkpoint,
    starting_checkpoint,
)
from emotion.training.record import FinishedRun, read_record
from tests.training.conftest import SMALL
from tests.training.test_run import curves_of

MEASURED = {"seconds", "overrides", "throughput", "cell", "settings"}
ALL_AT_ONCE = [
    "callbacks=[ema,early_stopping]",
    "optimizer=adamw",
    "optimizer.backbone_lr=1e-4",
    "schedule=onecycle",
    "loss.class_weights=balanced",
    "loss.label_smoothing=0.1",
    "loss.mixup=0.4",
    "model.freeze_epochs=2",
    "loader.num_workers=1",
    "trainer.accumulate_grad_batches=2",
    "trainer.gradient_clip_val=1.0",
    "trainer.precision=bf16-mixed",
]


def result(run_dir: Path) -> dict:
    record = read_record(run_dir)
    assert isinstance(record, FinishedRun)
    return record.model_dump(exclude=MEASURED)


def assert_same_run(run_dir: Path, expected: Path) -> None:
    assert [row for row in curves_of(run_dir) if row["epoch"]] == [
        row for row in curves_of(expected) if row["epoch"]
    ]
    assert result(run_dir) == result(expected)
    ours, theirs = (
        torch.load(folder / "best.ckpt", weights_only=True)["state_dict"]
        for folder in (run_dir, expected)
    )
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_an_interrupted_run_resumes_as_if_undisturbed(run_train, interrupt, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    settings = ["logger=csv", "trainer.max_epochs=2", "optimizer.lr=1e-2"]
    run_train(*settings, f"hydra.run.dir={whole}")
    in_stopped = [*settings, f"hydra.run.dir={stopped}", "ckpt_path=last"]  # starts with epoch 1
    interrupt(lambda: run_train(*in_stopped), epoch=1)
    assert read_record(stopped) is None
    assert (stopped / "last.ckpt").is_file()
    run_train(*in_stopped)
    assert_same_run(stopped, whole)
    # a finished run needs no optimizer state
    kept = torch.load(stopped / "best.ckpt", weights_only=True)
    assert not list(stopped.glob("**/last*.ckpt")) and "optimizer_states" not in kept
    # the same command does not train again, and another one cannot resume
    written_ns = (stopped / "best.ckpt").stat().st_mtime_ns
    run_train(*in_stopped)
    with pytest.raises(SystemExit, match=r"^error: ckpt_path=last"):
        run_train(*in_stopped, "trainer.max_epochs=3")
    assert (stopped / "best.ckpt").stat().st_mtime_ns == written_ns
    assert_same_run(stopped, whole)


@pytest.mark.slow
def test_a_killed_run_resumes_as_if_undisturbed_here_or_in_another_folder(
    run_train, tmp_path, demo_cache
):
    whole, killed, elsewhere = (tmp_path / name for name in ("whole", "killed", "elsewhere"))
    settings = ["logger=csv", "trainer.max_epochs=4", *ALL_AT_ONCE]
    paths = [f"paths.cache={demo_cache.directory.parents[1]}", f"hydra.run.dir={killed}"]
    small = [argument for argument in SMALL if not argument.startswith("logger")]
    process = subprocess.Popen(
        [sys.executable, "train.py", *small, *settings, *paths],
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )  # fmt: skip
    try:
        for line in process.stdout:
            if line.startswith("epoch   2 of"):
                break
        else:
            pytest.fail("it ended before")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert read_record(killed) is None
    run_train(*settings, f"hydra.run.dir={whole}")
    run_train(*settings, f"ckpt_path={killed}/last.ckpt", f"hydra.run.dir={elsewhere}")
    run_train(*settings, "ckpt_path=last", f"hydra.run.dir={killed}")
    assert_same_run(elsewhere, whole)
    assert_same_run(killed, whole)


def test_last_needs_a_folder_and_starts_with_the_first_epoch_in_an_empty_one(tmp_path):
    with pytest.raises(UserError, match=r"ckpt_path=last.*hydra\.run\.dir"):
        starting_checkpoint("last", tmp_path, named=False)
    assert starting_checkpoint("last", tmp_path, named=True) is None
    assert starting_checkpoint(None, tmp_path, named=False) is None
    (tmp_path / "last.ckpt").touch()
    assert starting_checkpoint("last", tmp_path, named=True) == tmp_path / "last.ckpt"


def test_a_file_that_training_cannot_resume_from_is_named(tmp_path):
    def module(**settings) -> EmotionModule:
        return EmotionModule("mobilenetv3_small_050", 6, ["a", "b"], **settings)

    path = tmp_path / "x.ckpt"
    settings = dict(module(hidden=64).hparams)

    def assert_refused(named: str) -> None:
        with pytest.raises(UserError, match=rf"x\.ckpt.*{named}"):
            load_checkpoint(path, module())

    assert_refused("missing")
    path.write_text("nothing")
    assert_refused("damaged")
    saved = {"hyper_parameters": settings, "state_dict": module(hidden=64).state_dict()}
    torch.save(saved, path)
    assert_refused("model.pretrained")
    torch.save(saved | {"optimizer_states": []}, path)
    assert_refused("callbacks")
    torch.save(dict.fromkeys(STATE_OF_TRAINING) | saved | {"optimizer_states": []}, path)
    assert_refused("hidden=64")
    assert load_checkpoint(path, module(hidden=64))["hyper_parameters"] == settings


def test_the_best_checkpoint_beside_must_be_the_one_that_was_kept(tmp_path):
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    best.write_bytes(b"weights")
    state = {"best_model_path": "/elsewhere/best.ckpt", "digest": file_digest(best)}
    checkpoint = {"callbacks": {"best": state, "last": {}}}
    assert best_beside(checkpoint, last) == best
    best.write_bytes(b"other weights")
    for damaged in (checkpoint, {"callbacks": {"last": {}}}, {"callbacks": [1]}, {}):
        with pytest.raises(DamagedFile, match=r"last\.ckpt.*best"):
            best_beside(damaged, last)


def test_an_interrupted_write_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"epoch": 1}, str(path))

    def interrupted_save(value, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted_save)
    with pytest.raises(KeyboardInterrupt):
        WholeCheckpoints().save_checkpoint({"epoch": 2}, str(path))
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_error_that_names_the_checkpoint(tmp_path, monkeypatch):
    class FullDisk(io.BytesIO):
        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "open", lambda *_: FullDisk(), raising=False)
    with pytest.raises(OSError) as full:
        WholeCheckpoints().save_checkpoint({"weight": torch.ones(9)}, str(tmp_path / "last.ckpt"))
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(tmp_path / "last.ckpt"))
