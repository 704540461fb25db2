"""Going on after a kill: the same curves and scores as if nothing had happened."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emotion import REPOSITORY
from emotion.errors import UserError
from emotion.models.lightning_module import EmotionModule
from emotion.training.checkpoint import WholeCheckpoints, load_checkpoint

pytestmark = pytest.mark.slow

EPOCHS = 5
SMALL = "mobilenetv3_small_050"
SETTINGS = {
    "seed": ["loader.num_workers=1", "augmentation=seed", "schedule.lr_decay=0.5"],
    "all_at_once": [
        "callbacks=[ema,early_stopping]",
        "optimizer=adamw",
        "optimizer.backbone_lr=1e-4",
        "schedule=onecycle",
        "loss.class_weights=balanced",
        "loss.label_smoothing=0.1",
        "loss.mixup=0.4",
        "model.freeze_epochs=2",
        "trainer.accumulate_grad_batches=2",
        "trainer.gradient_clip_val=1.0",
        "trainer.precision=bf16-mixed",
    ],
}


@pytest.fixture
def command(demo_cache):
    def train_command(run_dir, *arguments):
        return [
            sys.executable, "train.py", "data.max_clips_per_class=2", "loader.batch_size=4",
            "loader.image_px=64", "loader.num_workers=0", "model.pretrained=false", "interval=15",
            "logger=csv", f"trainer.max_epochs={EPOCHS}", f"model.backbone={SMALL}",
            f"hydra.run.dir={run_dir}",
            f"paths.cache={demo_cache.directory.parents[1]}", *arguments,
        ]  # fmt: skip

    return train_command


def run(command):
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kill_after_epoch(number, command):
    """Start a command, and kill -9 it as soon as it prints the line of an epoch."""
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if line.startswith(f"epoch {number:3d} of"):
                break
        else:
            pytest.fail("it ended before")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def curves(run_dir):
    with open(run_dir / "curves" / "metrics.csv") as file:
        return [row for row in csv.DictReader(file) if row["epoch"]]


def result(run_dir):
    metrics = json.loads((run_dir / "metrics.json").read_text())
    measured = ("seconds", "overrides", "memory_mb", "throughput", "dirty", "wandb", "cell")
    return {key: value for key, value in metrics.items() if key not in measured}


def weights(run_dir, name="best.ckpt"):
    return torch.load(run_dir / name, weights_only=True)["state_dict"]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_killed_run_goes_on_as_if_undisturbed(command, tmp_path, settings):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(command(whole, *SETTINGS[settings]))
    kill_after_epoch(2, command(killed, *SETTINGS[settings]))
    assert not (killed / "metrics.json").exists()
    said = run(command(killed, "ckpt_path=last", *SETTINGS[settings]))
    assert "goes on after epoch" in said
    assert curves(killed) == curves(whole)
    assert result(killed) == result(whole)
    for name in ("best.ckpt", "last.ckpt"):
        theirs = weights(whole, name)
        assert all(torch.equal(v, theirs[k]) for k, v in weights(killed, name).items())


def test_a_run_goes_on_in_another_folder_with_its_curves_and_its_best_epoch(command, tmp_path):
    first, second, whole = (tmp_path / name for name in ("first", "second", "whole"))
    settings = ["optimizer.lr=1e-2", "loader.num_workers=1"]
    run(command(first, *settings, "trainer.max_epochs=2"))
    said = run(command(second, *settings, f"ckpt_path={first}/last.ckpt"))
    assert "goes on after epoch 2 of" in said and "epoch   2 of" not in said
    run(command(whole, *settings))
    assert curves(second) == curves(whole)
    assert result(second) == result(whole)
    theirs = weights(whole)
    assert all(torch.equal(value, theirs[key]) for key, value in weights(second).items())


def test_a_finished_run_is_judged_again_and_trained_no_further(command, tmp_path):
    run_dir = tmp_path / "run"
    run(command(run_dir, "trainer.max_epochs=1"))
    before = curves(run_dir), result(run_dir), weights(run_dir, "last.ckpt")
    said = run(command(run_dir, "trainer.max_epochs=1", "ckpt_path=last"))
    assert "epoch   " not in said.replace("goes on after epoch", "")
    assert (curves(run_dir), result(run_dir)) == before[:2]


def test_last_needs_a_folder_and_begins_anew_where_it_is_empty(command, tmp_path):
    nameless = [a for a in command(tmp_path / "x") if not a.startswith("hydra.run.dir")]
    done = subprocess.run(
        [*nameless, f"paths.output={tmp_path}", "ckpt_path=last"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: ckpt_path=last: of which run? Name its folder: hydra.run.dir=DIR"
    )
    said = run(command(tmp_path / "new", "ckpt_path=last", "trainer.max_epochs=1"))
    assert "new/last.ckpt yet: begins with epoch 1" in said


def small_module(**settings):
    return EmotionModule(SMALL, 6, ["a", "b"], **settings)


def test_what_is_no_checkpoint_to_go_on_from_is_named(tmp_path):
    path = tmp_path / "x.ckpt"
    with pytest.raises(UserError, match=r"x\.ckpt: no such file"):
        load_checkpoint(path, small_module())
    path.write_text("nothing")
    with pytest.raises(UserError, match=r"x\.ckpt: not a checkpoint of train\.py"):
        load_checkpoint(path, small_module())
    settings = dict(small_module(hidden=64).hparams)
    torch.save({"hyper_parameters": settings}, path)
    with pytest.raises(UserError, match=r"holds weights alone, go on from last\.ckpt"):
        load_checkpoint(path, small_module(hidden=64))
    torch.save({"hyper_parameters": settings, "optimizer_states": []}, path)
    with pytest.raises(UserError, match=r"its run had hidden=64, this one has 512"):
        load_checkpoint(path, small_module())
    assert load_checkpoint(path, small_module(hidden=64))["hyper_parameters"] == settings


def test_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"epoch": 1}, str(path))

    def break_off(value, file):
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(KeyboardInterrupt):
        WholeCheckpoints().save_checkpoint({"epoch": 2}, str(path))
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]
