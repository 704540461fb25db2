import csv
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion import REPOSITORY, EmotionRecognizer
from emotion.data.datamodule import StackDataModule
from emotion.evaluation.calibration import calibration_error, fit_temperature
from emotion.evaluation.metrics import judge
from emotion.evaluation.predictions import Predictions
from emotion.inference.backends import find_model
from emotion.models.lightning_module import MODULES, EmotionModule
from emotion.models.recipe import Recipe
from train import train

pytestmark = pytest.mark.slow


@pytest.fixture
def run_train(monkeypatch, tmp_path, demo_cache):
    """Call train.py's entry in this process on the small demo; returns the output folder."""

    def run(*arguments):
        cache_root = demo_cache.directory.parents[1]
        paths = [f"paths.cache={cache_root}", f"paths.output={tmp_path}"]
        monkeypatch.setattr("sys.argv", ["train.py", *arguments, "experiment=smoke", *paths])
        train()
        return tmp_path

    return run


def metrics_of(folder):
    """Read the results of runs, in the order in which they ended."""
    paths = sorted(folder.glob("**/metrics.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text()) for path in paths]


def curves_of(folder):
    (path,) = folder.glob("**/curves/metrics.csv")
    with open(path) as file:
        return list(csv.DictReader(file))


def test_the_literal_sweep_fills_nine_cells(tmp_path, demo_cache):
    done = subprocess.run(
        [sys.executable, "train.py", "-m", "model=mobilenetv3,effv2s,effv2m", "interval=5,10,15",
         "experiment=smoke", f"paths.output={tmp_path}",
         f"paths.cache={demo_cache.directory.parents[1]}"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=600,
        env={**os.environ, "WANDB_MODE": "offline"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    runs = metrics_of(tmp_path)
    assert {(r["model"], r["interval"], r["num_images"]) for r in runs} == {
        (model, interval, images)
        for model in ("mobilenetv3", "effv2s", "effv2m")
        for interval, images in ((5, 18), (10, 9), (15, 6))
    }
    assert len(runs) == 9 and all(r["status"] == "finished" for r in runs)
    parameters = {r["model"]: r["parameters"] for r in runs if r["interval"] == 5}
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
    assert (sweep / "confusion.png").exists() and "accuracy, %" in done.stdout
    assert "rendered faces" in done.stdout
    assert len(list(sweep.glob("*/wandb/offline-run-*"))) == 9  # each cell a W&B run of its own
    assert done.stdout.count("wandb sync ") == 10  # and one of the sweep
    assert (tmp_path / "reports" / sweep.name / "index.html").exists()
    assert "wandb:" not in done.stderr and "W0000" not in done.stderr


def test_a_run_can_be_loaded_and_judged_again(run_train, demo_cache):
    output = run_train("interval=15", "augmentation=none", "trainer.max_epochs=2")
    (result,) = metrics_of(output)
    (checkpoint,) = output.glob("runs/*/best.ckpt")
    module = EmotionModule.load_from_checkpoint(checkpoint).eval()
    datamodule = StackDataModule(
        demo_cache, 15, None, labels=demo_cache.scheme.labels, batch_size=10, image_px=64
    )
    datamodule.setup()
    (batch,) = datamodule.evaluation_dataloader("test")
    with torch.no_grad():
        probabilities = module(batch[0]).softmax(dim=1).numpy()
    assert result["reported_on"] == "test"
    again = Predictions.of_rows(datamodule.rows["test"], datamodule.labels, probabilities)
    written = Predictions.read(checkpoint.parent / "predictions.csv")
    np.testing.assert_allclose(written.of_split("test").probabilities, probabilities, atol=1e-6)
    assert written.splits == ["val"] * 10 + ["test"] * 10
    assert written.clips == [r.clip for s in ("val", "test") for r in datamodule.rows[s]]
    for level, predictions in (("stacks", again), ("clips", again.of_clips())):
        expected = json.loads(json.dumps(asdict(judge(predictions))))
        assert result["scores"]["test"][level] == expected
    assert sum(map(sum, result["confusion"])) == result["stacks"]["test"] == 10
    of_val, told = written.of_split("val"), result["calibration"]
    assert told["temperature"] == fit_temperature(of_val)
    recipe = Recipe.read(checkpoint.parent / "recipe.json")
    assert (recipe.temperature, recipe.unsure_below) == (told["temperature"], told["unsure_below"])
    for split in ("val", "test"):
        before = calibration_error(written.of_split(split))
        assert told[split]["stacks"]["ece"]["before"] == before
    best = max(float(row["val/accuracy"] or 0) for row in curves_of(output))
    assert result["scores"]["val"]["stacks"]["accuracy"] == pytest.approx(best)
    assert (checkpoint.parent / ".hydra" / "config.yaml").exists()


def test_one_seed_gives_one_result(run_train, tmp_path):
    run_train("interval=15", "logger=csv", "seed=3", f"hydra.run.dir={tmp_path}/a")
    run_train("interval=15", "logger=csv", "seed=3", f"hydra.run.dir={tmp_path}/b")
    run_train("interval=15", "logger=csv", "seed=4", f"hydra.run.dir={tmp_path}/c")
    a, b, c = (curves_of(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c


def test_a_failing_cell_stops_no_other_and_is_told(run_train, tmp_path, capsys):
    with pytest.raises(SystemExit, match="1 of 2 cells failed"):
        run_train(
            "-m", "interval=15", "logger=none", "model.pretrained=nowhere.pth,false"
        )  # fmt: skip
    assert [run["status"] for run in metrics_of(tmp_path)] == ["failed", "finished"]
    assert "nowhere.pth: no such file" in capsys.readouterr().out


def test_mistake_in_a_setting_of_the_split_ends_in_one_line(run_train):
    with pytest.raises(SystemExit) as caught:
        run_train("split=kfold", "split.fold=5", "logger=none")
    assert caught.value.code == ("error: split.fold=5: with split.folds=5, it is one of 0 to 4")


def test_folds_of_a_sweep_are_pooled(run_train, demo_cache, capsys):
    output = run_train(
        "-m", "split=kfold", "split.folds=3", "split.fold=0,1", "interval=15", "logger=none"
    )  # fmt: skip
    runs = metrics_of(output)
    assert [run["split"]["fold"] for run in runs] == [0, 1]
    (sweep,) = (output / "sweeps").iterdir()
    with open(sweep / "results.csv") as file:
        (row,) = (
            row
            for row in csv.DictReader(file)
            if (row["score"], row["level"]) == ("accuracy", "stacks")
        )
    right = sum(run["confusion"][i][i] for run in runs for i in range(5))
    assert (row["split"], row["folds"], row["num"], row["num_units"]) == (
        "kfold",
        "0 1",
        "20",
        "20",
    )
    assert float(row["value"]) == pytest.approx(right / 20)
    told = " ".join(capsys.readouterr().out.split())
    assert "20 test stacks of 20 clips (folds 0, 1, pooled)" in told
    for run in runs:
        parts = run["split"]["parts"]
        assert {split: Counter(facts["clips"]) for split, facts in parts.items()} == {
            split: dict.fromkeys(run["labels"], 2) for split in ("train", "val", "test")
        }
        assert run["reported_on"] == "test" and run["selected_on"] == "val"
    tested = [
        clip
        for path in sorted(sweep.glob("*/predictions.csv"))
        for clip in Predictions.read(path).of_split("test").clips
    ]
    assert len(set(tested)) == 20


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("interval=7", "interval=7: no such option, interval has: 10, 15, 5"),
        ("model=resnet", "model=resnet: no such option, model has: effv2m, effv2s, landmarks, mob"),
        ("interval.frames=7", "does not divide the segment of 90"),
        ("interval.frames=3", "python preprocess.py sampling.interval=3"),
        ("model.backbone=resnet999", "model.backbone must be a timm network"),
        ("trainer.max_epochs=many", "trainer.max_epochs takes a whole number such as"),
        ("epochs=3", "epochs"),
        ("calibration.accuracy=1.5", "it is from 0 (answer always) to below 1"),
        ("loss.class_weights=equal", "loss.class_weights=equal: it is null, balanced or root"),
        ("loss.mixup=-1", "loss.mixup=-1: it is 0"),
        ("refit=nonsense", "error: refit=nonsense: it is null, best or all"),
        ("model.fusion=slow", "model.fusion must be one of early, late"),
        ("optimizer.name=Adamm", "optimizer.name=Adamm: torch.optim has"),
        ("optimizer.lr=-1", "torch.optim.Adam refuses its settings: Invalid learning rate"),
        ("schedule.name=cosin", "schedule.name=cosin: it is one of exponential"),
        ("trainer.devices=2", "trainer.devices=2: more than one need trainer=ddp"),
        ("trainer.precision=17", "Precision 17 is invalid"),
        ("trainer.accelerator=abacus", "invalid accelerator name"),
        ("ckpt_path=nowhere.ckpt", "nowhere.ckpt: no such file"),
        ("split=half", "split=half: no such option, split has: data, grouped, ids, kfold, leave_"),
        ("split.fold=1", "fold"),  # of the default split, which has none
        ("split=ids", "error: split=ids leaves no stacks for val (train: 30, val: 0, test: 0)"),
        ("split=leave_one_subject_out", "names don't tell who is seen in 30 clips (Anger_0001 is"),
    ],
)
def test_a_mistake_ends_in_one_line(run_train, argument, message):
    with pytest.raises(SystemExit) as caught:
        run_train(argument, "logger=none")
    assert str(caught.value.code).startswith("error: ")
    assert message in str(caught.value.code) and "\n" not in str(caught.value.code)


def test_an_average_that_keeps_all_is_refused_in_one_line(run_train):
    with pytest.raises(SystemExit, match=r"^error: .*callbacks\.ema\.decay=2"):
        run_train("callbacks=ema", "callbacks.ema.decay=2", "logger=none")


def test_overfit_learns_one_batch_by_heart(run_train):
    output = run_train("trainer=overfit", "interval=15", "logger=csv", "trainer.max_epochs=40",
                       "optimizer.lr=3e-3", "loader.batch_size=5",
                       "model.backbone=mobilenetv3_small_050")  # fmt: skip
    (result,) = metrics_of(output)
    assert result["stacks"] == {"train": 5, "val": 5, "test": 0}
    last = [row for row in curves_of(output) if row["train/accuracy"]][-1]
    assert float(last["train/accuracy"]) == 1 and float(last["train/loss"]) < 0.2
    assert sorted(map(sum, result["confusion"])) == [1, 1, 1, 1, 1]  # one stack of each class


def test_a_checkpoint_of_mixed_precision_loads_as_others_do(run_train):
    output = run_train("interval=15", "logger=none", "model.backbone=mobilenetv3_small_050",
                       "trainer=smoke", "trainer.precision=bf16-mixed",
                       "trainer.deterministic=true")  # fmt: skip
    (checkpoint,) = output.glob("runs/*/best.ckpt")
    module = EmotionModule.load_from_checkpoint(checkpoint)
    assert list(torch.load(checkpoint, weights_only=True)["state_dict"]) == list(
        EmotionModule("mobilenetv3_small_050", 6, list("abcde")).state_dict()
    )
    assert next(module.parameters()).dtype == torch.float32


def test_real_clips_split_by_actor(monkeypatch, tmp_path, shared_data):
    monkeypatch.setattr(
        "sys.argv",
        ["train.py", "data=javanese", f"data.root={shared_data / 'javanese'}", "experiment=smoke",
         "logger=none", "interval=15", f"paths.cache={tmp_path}/cache", f"paths.output={tmp_path}"],
    )  # fmt: skip
    train()
    (result,) = metrics_of(tmp_path)
    (manifest,) = tmp_path.glob("cache/javanese-*/*/manifest.csv")
    with open(manifest) as file:
        rows = list(csv.DictReader(file))
    actors = {s: {r["subject"] for r in rows if r["split"] == s} for s in ("train", "val")}
    assert actors["val"] == {"03"} and not actors["train"] & actors["val"]
    # the actor stands in the clip's name too, where no split rule has touched it
    assert all(row["clip"].split("-")[0] == row["subject"] for row in rows)
    assert result["reported_on"] == "val" and result["clips"]["val"] == 10


def test_each_actor_is_left_out_once(monkeypatch, tmp_path, shared_data, capsys):
    clips = tmp_path / "clips"
    clips.mkdir()
    for actor in ("01", "02", "03"):
        for path in (shared_data / "javanese").glob(f"{actor}-0[12]-0[126]_01.mp4"):
            (clips / path.name).symlink_to(path)

    def run(*arguments):
        monkeypatch.setattr(
            "sys.argv",
            ["train.py", *arguments, "data=javanese", f"data.root={clips}", "experiment=smoke",
             "logger=none", "interval=15", "data.max_clips_per_class=4",
             f"paths.cache={tmp_path}/cache", f"paths.output={tmp_path}"],
        )  # fmt: skip
        train()

    run("-m", "split=leave_one_subject_out", "split.fold=0,1,2")
    runs = metrics_of(tmp_path / "sweeps")
    subjects = [
        {split: facts["subjects"] for split, facts in run["split"]["parts"].items()} for run in runs
    ]
    assert subjects == [
        {"train": ["03"], "val": ["02"], "test": ["01"]},
        {"train": ["01"], "val": ["03"], "test": ["02"]},
        {"train": ["02"], "val": ["01"], "test": ["03"]},
    ]
    tested = []
    for path, actor in zip(
        sorted(tmp_path.glob("sweeps/*/*/predictions.csv")), ("01", "02", "03"), strict=True
    ):
        predictions = Predictions.read(path).of_split("test")
        assert {clip.split("-")[0] for clip in predictions.clips} == {actor}
        tested += predictions.clips
    (manifest,) = tmp_path.glob("cache/*/*/manifest.csv")
    with open(manifest) as file:
        assert sorted(tested) == sorted(row["clip"] for row in csv.DictReader(file))
    told = " ".join(capsys.readouterr().out.split())
    assert f"{len(tested)} test stacks" in told and "and 3 subjects (folds 0, 1, 2, pooled)" in told
    assert "for subjects are too few to draw from" in told

    with pytest.raises(SystemExit, match=r"split=ids puts the same person.*01 in train and val"):
        run("split=ids", "split.by=sentence", "split.val=['02']")
    with pytest.raises(SystemExit, match=r"split\.fold=3: with 3 subjects \(01, 02, 03\)"):
        run("split=leave_one_subject_out", "split.fold=3")


SMALL = ["interval=15", "logger=none", "model.backbone=mobilenetv3_small_050"]


def said_of_test(checkpoint, cache, split, **settings):
    """Give the probabilities that a checkpoint has for the stacks of a split."""
    kind = MODULES[settings.get("inputs", "stacks")]
    module = kind.load_from_checkpoint(checkpoint).eval()
    settings |= {"labels": cache.scheme.labels, "batch_size": 10, "image_px": 64}
    datamodule = StackDataModule(cache, 15, None, **settings)
    datamodule.setup()
    (batch,) = datamodule.evaluation_dataloader(split)
    with torch.no_grad():
        return module.predict_step(batch, 0).numpy()


@pytest.mark.parametrize(("refit", "callbacks"), [("best", "default"), ("all", "ema")])
def test_refit_trains_once_more_on_val_stacks_too(run_train, demo_cache, refit, callbacks):
    output = run_train(*SMALL, f"refit={refit}", "trainer.max_epochs=2", "optimizer.lr=1e-3",
                       f"callbacks={callbacks}")  # fmt: skip
    (result,) = metrics_of(output)
    (run_dir,) = (output / "runs").iterdir()
    epochs = result["best_epoch"] if refit == "best" else 2
    told = (run_dir / "train.log").read_text()
    assert f"once more for {epochs} epochs on 20 stacks" in told  # 10 train, 10 val
    assert (result["refit"], result["checkpoint"]) == (refit, "refit.ckpt")
    kept = torch.load(run_dir / "refit.ckpt", weights_only=True)
    assert kept["global_step"] == 5 * epochs  # of 4 stacks each
    written = Predictions.read(run_dir / "predictions.csv")
    for split, checkpoint in (("val", "best.ckpt"), ("test", "refit.ckpt")):
        expected = said_of_test(run_dir / checkpoint, demo_cache, split)
        np.testing.assert_allclose(written.of_split(split).probabilities, expected, atol=1e-6)
    assert find_model(run_dir) == run_dir / "refit.ckpt"
    assert result["stacks"] == {"train": 10, "val": 10, "test": 10}
    of_val = written.of_split("val")
    neutral = np.log(of_val.probabilities)[of_val.targets == 2].mean(axis=0)
    assert Recipe.read(run_dir / "recipe.json").neutral == pytest.approx(neutral, abs=1e-5)


@pytest.mark.parametrize("trainer, why", [("ddp", "is for one process"), ("overfit", "adds val")])
def test_refit_that_can_not_be_is_refused_at_once(run_train, tmp_path, trainer: str, why: str):
    with pytest.raises(SystemExit, match=rf"^error: refit {why}.*=null$"):
        run_train(*SMALL, "refit=all", f"trainer={trainer}")
    assert not list(tmp_path.glob("**/*.ckpt"))


@pytest.mark.parametrize("setting", [
    "loader.batch_size=0", "loader.num_workers=-1", "loader.image_px=0", "trainer.max_epochs=0",
    "trainer.max_epochs=-1", "model.hidden=0", "model.dropout=[0.5]", "model.dropout=[0.5,1.0]",
])  # fmt: skip
def test_number_out_of_range_is_named(run_train, tmp_path, setting: str):
    with pytest.raises(SystemExit, match=f"^error: {re.escape(setting.replace(',', ', '))}: it is"):
        run_train(*SMALL, setting)
    assert not list(tmp_path.glob("**/*.ckpt"))


def test_landmarks_are_a_model_from_end_to_end(run_train, demo_cache, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")  # and its pictures are of stacks with landmarks
    output = run_train("model=landmarks", "interval=15", "logger=default")
    assert list(output.glob("**/*.wandb"))
    (result,) = metrics_of(output)
    (run_dir,) = (output / "runs").iterdir()
    assert (result["model"], result["parameters"], result["status"]) == ("landmarks", 0, "finished")
    expected = said_of_test(run_dir / result["checkpoint"], demo_cache, "test", inputs="landmarks")
    written = Predictions.read(run_dir / "predictions.csv").of_split("test")
    np.testing.assert_allclose(written.probabilities, expected, atol=1e-6)
    recognizer = EmotionRecognizer.load(run_dir)
    assert recognizer.recipe.inputs == "landmarks"
    answer = recognizer.predict(demo_cache.root / f"{written.clips[0]}.mp4")
    powers = expected[0].astype(float) ** (1 / recognizer.recipe.temperature)
    told = list(answer.segments[0].probabilities.values())
    np.testing.assert_allclose(told, powers / powers.sum(), atol=1e-4)


def test_stills_teach_a_network_that_then_learns_clips(monkeypatch, tmp_path, shared_data):
    """Weights of `experiment=pretrain_stills` start a network that is trained on clips."""
    stills, clips = tmp_path / "stills", tmp_path / "clips"
    clips.mkdir()
    for actor in ("01", "02", "06", "07"):
        for path in (shared_data / "javanese").glob(f"{actor}-01-0[12346]_01.mp4"):
            (clips / path.name).symlink_to(path)
    for folder in sorted((shared_data / "stills").iterdir()):
        (stills / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:8]:
            (stills / folder.name / path.name).symlink_to(path)

    def run(*arguments: str) -> Path:
        small = ["trainer.max_epochs=1", "loader.image_px=32", "logger=none", "num_workers=1",
                 f"paths.cache={tmp_path}/cache", f"paths.output={tmp_path}"]  # fmt: skip
        monkeypatch.setattr("sys.argv", ["train.py", *arguments, *small])
        train()
        return max(tmp_path.glob("**/recipe.json"), key=lambda p: p.stat().st_mtime_ns).parent

    stills_run = run("experiment=pretrain_stills", f"data.root={stills}")
    assert stills_run == tmp_path / "pretrained" / "stills"
    clips_run = run("data=javanese", f"data.root={clips}", "data.min_frames=39", "model=resnet10t",
                    "split=leave_one_subject_out", "model.normalize=stack", "optimizer.lr=1e-9",
                    "face.refine=true", "face.fit=features", "face.margin=0.0",
                    f"model.pretrained={stills_run}/best.ckpt")  # fmt: skip
    record = json.loads((clips_run / "metrics.json").read_text())
    assert record["pretrained"]["loaded"]
    before, after = (
        torch.load(path, weights_only=True)["state_dict"]
        for path in (stills_run / "best.ckpt", clips_run / "best.ckpt")
    )
    weights = [k for k in before if k.startswith("network.backbone.") and k.endswith("weight")]
    weights.remove("network.backbone.conv1.weight")  # of one image there, of several here
    assert len(weights) > 20
    for key in weights:  # so little was learnt that what was taken over is still there
        torch.testing.assert_close(after[key], before[key], atol=1e-5, rtol=1e-4)
    assert EmotionRecognizer.load(clips_run).predict(min(clips.iterdir())).probabilities


def test_run_is_repeated_from_its_folder(run_train, monkeypatch, tmp_path):
    run_train("interval=15", "logger=csv", "seed=3", "augmentation=strong")
    (first,) = (tmp_path / "runs").iterdir()
    repeat = ["--config-dir", f"{first}/.hydra", "--config-name", "config"]
    monkeypatch.setattr("sys.argv", ["train.py", *repeat, f"hydra.run.dir={tmp_path}/again"])
    train()
    again = tmp_path / "again"
    assert (again / "predictions.csv").read_text() == (first / "predictions.csv").read_text()
    assert curves_of(again) == curves_of(first)
    records = [json.loads((folder / "metrics.json").read_text()) for folder in (first, again)]
    for key in (
        "cell",
        "seed",
        "scores",
        "val_accuracy",
        "manifest_sha256",
        "versions",
        "settings",
    ):
        assert records[0][key] == records[1][key]


def test_result_tells_what_it_rests_on(run_train, demo_cache):
    (result,) = metrics_of(run_train("interval=15", "logger=none", "seed=7"))
    manifest = (demo_cache.directory / "manifest.csv").read_bytes()
    assert result["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert result["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {"commit", "dirty", "machine", "memory_mb"} <= set(result) and result["seed"] == 7


def test_memory_does_not_grow_from_cell_to_cell(tmp_path, demo_cache):
    done = subprocess.run(
        [sys.executable, "train.py", "-m", "seed=range(9)", "interval=15", "experiment=smoke",
         "sweep=s", f"paths.output={tmp_path}", f"paths.cache={demo_cache.directory.parents[1]}"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=900,
        env={**os.environ, "WANDB_MODE": "offline"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    resident = {r["seed"]: r["memory_mb"]["resident"] for r in metrics_of(tmp_path)}
    assert len(resident) == 9 and resident[8] < 1.15 * resident[1], resident
    # a model kept by mistake would be here eight times: 14 MB, and twice that in the optimizer
    assert resident[8] - resident[1] < 42 * 3, resident
