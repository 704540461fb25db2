"""Runs of train.py: what a run writes, that it repeats, and whole sweeps of the command line."""

import csv
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion import REPOSITORY, EmotionRecognizer
from emotion.commands.train import train
from emotion.data.datamodule import StackDataModule
from emotion.evaluation.calibration import calibration_error, fit_temperature, min_clips
from emotion.evaluation.metrics import judge
from emotion.evaluation.predictions import Predictions
from emotion.models.lightning_module import EmotionModule
from emotion.models.recipe import Recipe
from emotion.training.record import FinishedRun, read_record


def records_of(folder: Path) -> list[FinishedRun]:
    """Read the records of runs below a folder, in the order in which the runs ended."""
    paths = sorted(folder.glob("**/metrics.json"), key=lambda path: path.stat().st_mtime_ns)
    return [read_record(path.parent) for path in paths]


def curves_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "curves" / "metrics.csv") as file:
        return list(csv.DictReader(file))


def plain(scores) -> dict:
    return json.loads(json.dumps(asdict(scores)))


# One run


def test_a_checkpoint_gives_the_predictions_and_scores_of_its_run(finished_run, demo_cache):
    record = read_record(finished_run)
    module = EmotionModule.load_from_checkpoint(finished_run / record.checkpoint).eval()
    datamodule = StackDataModule(
        demo_cache, 15, None, labels=demo_cache.labels, batch_size=10, image_px=64
    )
    datamodule.setup()
    (batch,) = datamodule.evaluation_dataloader("test")
    with torch.no_grad():
        probabilities = module(batch[0]).softmax(dim=1).numpy()
    written = Predictions.read(finished_run / "predictions.csv")
    np.testing.assert_allclose(written.of_split("test").probabilities, probabilities, atol=1e-6)
    assert [sample.split for sample in written.samples] == ["val"] * 10 + ["test"] * 10
    assert written.clips == [r.clip for s in ("val", "test") for r in datamodule.rows[s]]
    calibrated = record.predictions(finished_run).of_split("test")
    assert plain(record.reported.stacks) == plain(judge(calibrated))
    assert plain(record.reported.clips) == plain(judge(calibrated.of_clips()))
    assert sum(map(sum, record.reported.stacks.confusion)) == record.stacks["test"] == 10
    assert record.reported_on == "test" and record.selected_on == "val"
    assert record.calibration.temperature == fit_temperature(written.of_split("val"))
    for split, quality in record.calibration.splits.items():
        assert quality.stacks.ece_before == calibration_error(written.of_split(split))
    recipe = Recipe.read(finished_run / "recipe.json")
    assert recipe.temperature == record.calibration.temperature
    assert recipe.unsure_below == record.calibration.unsure_below


def test_a_threshold_needs_more_validation_clips_than_these(finished_run):
    calibration = read_record(finished_run).calibration
    assert (calibration.threshold_set, calibration.unsure_below) == (False, 0.0)
    assert min_clips(calibration.accuracy) > calibration.splits["val"].clips.num == 10


def test_a_record_names_what_the_run_depends_on(finished_run, demo_cache):
    record = read_record(finished_run)
    manifest = (demo_cache.directory / "manifest.csv").read_bytes()
    assert record.manifest_sha256 == hashlib.sha256(manifest).hexdigest()
    assert record.provenance.versions["torch"] == torch.__version__.partition("+")[0]
    assert record.provenance.machine.torch_threads == torch.get_num_threads()
    assert {split: sum(part.clips.values()) for split, part in record.parts.items()} == {
        "train": 10, "val": 10, "test": 10,
    }  # fmt: skip
    assert record.settings["loader"]["image_px"] == record.image_px == 64
    assert record.throughput.ms_per_stack > 0 and record.throughput.train_stacks_per_s > 0


def test_a_run_ends_with_its_folder_and_the_predict_command(finished_run):
    *_, folder, command = (finished_run / "train.log").read_text().splitlines()
    assert folder.endswith(str(finished_run))
    assert f"predict.py model_path={finished_run} clips=" in command


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("ckpt_path=nowhere.ckpt", "nowhere.ckpt"),
        ("ckpt_path=last", "hydra.run.dir=DIR"),
        ("model.pretrained=nowhere.pth", "nowhere.pth"),
        ("trainer.devices=2", "trainer.devices=2"),
        ("interval.frames=3", "sampling.interval=3"),
    ],
)
def test_a_mistake_ends_in_one_line_before_training(run_train, tmp_path, argument, named):
    with pytest.raises(SystemExit) as caught:
        run_train(argument)
    assert re.fullmatch(rf"error: .*{re.escape(named)}.*", str(caught.value.code))
    assert not list(tmp_path.glob("**/*.ckpt"))


@pytest.mark.slow
def test_one_seed_gives_one_result_and_a_run_is_repeated_from_its_folder(
    run_train, monkeypatch, tmp_path
):
    settings = ["logger=csv", "augmentation=strong", "trainer.max_epochs=2"]
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    run_train(*settings, "seed=3", f"hydra.run.dir={first}")
    repeat = ["--config-dir", f"{first}/.hydra", "--config-name", "config"]
    monkeypatch.setattr("sys.argv", ["train.py", *repeat, f"hydra.run.dir={again}"])
    train()
    run_train(*settings, "seed=4", f"hydra.run.dir={other}")
    assert (again / "predictions.csv").read_text() == (first / "predictions.csv").read_text()
    assert curves_of(again) == curves_of(first) != curves_of(other)
    records = read_record(first), read_record(again)
    assert records[1].command == shlex.join(["python", "train.py", *repeat])
    measured = {"overrides", "flags", "seconds", "throughput"}
    assert records[0].model_dump(exclude=measured) == records[1].model_dump(exclude=measured)
    best = max(float(row["val/accuracy"] or 0) for row in curves_of(first))
    assert records[0].scores["val"].stacks.accuracy == pytest.approx(best)
    assert records[0].val_accuracy == pytest.approx(best)


@pytest.mark.slow
def test_overfit_memorizes_one_batch(run_train):
    output = run_train("trainer=overfit", "logger=csv", "trainer.max_epochs=40",
                       "optimizer.lr=3e-3", "loader.batch_size=5")  # fmt: skip
    (record,) = records_of(output)
    assert record.stacks == {"train": 5, "val": 5, "test": 0}
    (run_dir,) = (output / "runs").iterdir()
    last = [row for row in curves_of(run_dir) if row["train/accuracy"]][-1]
    assert float(last["train/accuracy"]) == 1 and float(last["train/loss"]) < 0.2
    assert sorted(map(sum, record.reported.stacks.confusion)) == [1, 1, 1, 1, 1]


@pytest.mark.slow
def test_a_checkpoint_of_mixed_precision_loads_as_others_do(run_train):
    output = run_train("trainer=smoke", "trainer.precision=bf16-mixed",
                       "trainer.deterministic=true")  # fmt: skip
    (checkpoint,) = output.glob("runs/*/best.ckpt")
    module = EmotionModule.load_from_checkpoint(checkpoint)
    assert list(torch.load(checkpoint, weights_only=True)["state_dict"]) == list(
        EmotionModule("mobilenetv3_small_050", 6, list("abcde")).state_dict()
    )
    assert next(module.parameters()).dtype == torch.float32


@pytest.mark.slow
def test_landmarks_are_a_model_from_training_to_inference(run_train, demo_cache):
    output = run_train("model=landmarks", "model.backbone=null", "loss.mixup=0.0")
    (record,) = records_of(output)
    (run_dir,) = (output / "runs").iterdir()
    assert (record.model, record.status) == ("landmarks", "finished")
    clips = record.predictions(run_dir).of_split("test").of_clips()
    recognizer = EmotionRecognizer.load(run_dir)
    answer = recognizer.predict(demo_cache.root / f"{clips.clips[0]}.mp4")
    probabilities = list(answer.probabilities.values())
    # predictions.csv has float32 probabilities, which underflow
    np.testing.assert_allclose(probabilities, clips.probabilities[0], atol=1e-3)


@pytest.mark.slow
def test_a_network_pretrained_on_stills_is_trained_on_clips(
    monkeypatch, tmp_path, demo_cache, stills
):
    def run(*arguments: str) -> Path:
        small = ["trainer.max_epochs=1", "loader.image_px=32", "logger=none", "num_workers=1",
                 f"paths.output={tmp_path}"]  # fmt: skip
        monkeypatch.setattr("sys.argv", ["train.py", *arguments, *small])
        train()
        return max(tmp_path.glob("**/recipe.json"), key=lambda p: p.stat().st_mtime_ns).parent

    stills_run = run(
        "experiment=pretrain_stills", f"data.root={stills}", f"paths.cache={tmp_path}/cache"
    )
    weights = stills_run / "best.ckpt"
    assert weights == tmp_path / "pretrained" / "stills" / "best.ckpt"
    clips_run = run(
        "experiment=smoke", "model=resnet10t", "interval=15", "optimizer.lr=1e-9",
        f"model.pretrained={weights}", f"paths.cache={demo_cache.directory.parents[1]}",
    )  # fmt: skip
    assert read_record(clips_run).pretrained.loaded
    before, after = (
        torch.load(folder / "best.ckpt", weights_only=True)["state_dict"]
        for folder in (stills_run, clips_run)
    )
    names = [k for k in before if k.startswith("network.backbone.") and k.endswith("weight")]
    names = [k for k in names if before[k].shape == after[k].shape]  # all but the stem's first
    assert len(names) > 20
    for name in names:  # the learning rate is so small that the pretrained weights are still there
        torch.testing.assert_close(after[name], before[name], atol=1e-5, rtol=1e-4)


# Sweeps


@pytest.mark.slow
def test_the_literal_sweep_fills_nine_cells(tmp_path, demo_cache):
    done = subprocess.run(
        [sys.executable, "train.py", "-m", "model=mobilenetv3,effv2s,effv2m", "interval=5,10,15",
         "experiment=smoke", f"paths.output={tmp_path}",
         f"paths.cache={demo_cache.directory.parents[1]}"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=600,
        env={**os.environ, "WANDB_MODE": "offline"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    records = records_of(tmp_path)
    assert {(r.model, r.interval, r.num_images) for r in records} == {
        (model, interval, images)
        for model in ("mobilenetv3", "effv2s", "effv2m")
        for interval, images in ((5, 18), (10, 9), (15, 6))
    }
    assert len(records) == 9 and all(isinstance(r, FinishedRun) for r in records)
    parameters = {r.model: r.parameters for r in records if r.interval == 5}
    assert parameters == {"mobilenetv3": 3468709, "effv2s": 20839165, "effv2m": 53520033}
    (sweep,) = (tmp_path / "sweeps").iterdir()
    with open(sweep / "results.csv") as file:
        table = [
            row
            for row in csv.DictReader(file)
            if (row["score"], row["level"]) == ("accuracy", "stacks")
        ]
    assert [(row["interval"], row["num_images"]) for row in table] == [
        *[("5", "18")] * 3,
        *[("10", "9")] * 3,
        *[("15", "6")] * 3,
    ]
    assert all(0 <= float(r["low"]) <= float(r["value"]) <= float(r["high"]) <= 1 for r in table)
    assert (sweep / "confusion.png").exists()
    assert len(list(sweep.glob("wandb/offline-run-*"))) == 9  # one W&B run for each cell
    assert done.stdout.count("wandb sync ") == 10  # and one for the sweep
    assert (tmp_path / "reports" / sweep.name / "index.html").exists()
    noise = "wandb:", "W0000", "No CUDA", "triton", "GPU available", "Tip:"
    assert not [word for word in noise if word in done.stdout + done.stderr]


@pytest.mark.slow
def test_each_subject_is_the_test_subject_once(monkeypatch, tmp_path, demo_cache):
    clips = tmp_path / "clips"
    clips.mkdir()
    numbers = Counter()
    for clip in sorted(demo_cache.root.glob("*.mp4")):
        label = clip.stem.partition("_")[0]
        numbers[label] += 1
        subject = f"0{numbers[label] % 3 + 1}"
        (clips / f"{subject}-{numbers[label]:02d}-{label}_01.mp4").symlink_to(clip)

    def run(*arguments: str) -> None:
        pattern = r"(?P<subject>\d\d)-(?P<sentence>\d\d)-(?P<label>[A-Za-z]+)_\d\d"
        monkeypatch.setattr("sys.argv", [
            "train.py", *arguments, "data=mine", f"data.root={clips}", "experiment=smoke",
            "data.max_clips_per_class=null",
            f"data.pattern='{pattern}'", "logger=none", "interval=15", "num_workers=1",
            "model.backbone=mobilenetv3_small_050",
            f"paths.cache={tmp_path}/cache", f"paths.output={tmp_path}",
        ])  # fmt: skip
        train()

    run("-m", "split=leave_one_subject_out", "split.fold=0,1,2")
    records = sorted(records_of(tmp_path / "sweeps"), key=lambda record: record.split.fold)
    subjects = [{split: p.subjects for split, p in record.parts.items()} for record in records]
    assert subjects == [
        {"train": ("03",), "val": ("02",), "test": ("01",)},
        {"train": ("01",), "val": ("03",), "test": ("02",)},
        {"train": ("02",), "val": ("01",), "test": ("03",)},
    ]
    folders = sorted(tmp_path.glob("sweeps/*/*_fold*"))
    tested = [read_record(f).predictions(f).of_split("test").clips for f in folders]
    assert [{clip[:2] for clip in of_fold} for of_fold in tested] == [{"01"}, {"02"}, {"03"}]
    (manifest,) = tmp_path.glob("cache/*/*/manifest.csv")
    with open(manifest) as file:
        assert sorted(clip for of_fold in tested for clip in of_fold) == sorted(
            row["clip"] for row in csv.DictReader(file)
        )
    (table,) = tmp_path.glob("sweeps/*/results.csv")
    with open(table) as file:
        (row,) = (
            row
            for row in csv.DictReader(file)
            if (row["score"], row["level"]) == ("accuracy", "stacks")
        )
    confusions = [record.reported.stacks.confusion for record in records]
    right = sum(confusion[i][i] for confusion in confusions for i in range(5))
    num = sum(map(len, tested))
    assert (row["folds"], row["num"]) == ("0 1 2", str(num))
    assert float(row["value"]) == pytest.approx(right / num)

    with pytest.raises(SystemExit, match=r"^error: split=ids .*03"):
        run("split=ids", "split.by=sentence", "split.val=['02']")
    with pytest.raises(SystemExit, match=r"^error: split\.fold"):
        run("split=leave_one_subject_out", "split.fold=3")
