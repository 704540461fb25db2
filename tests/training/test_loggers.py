"""W&B: when it is online, and what its files hold of a run and of a sweep."""

import csv
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import pytest
import wandb
from hydra.utils import instantiate
from sklearn import metrics as independent

from emotion.commands.train import train
from emotion.data.datamodule import StackDataModule
from emotion.data.split import KFold
from emotion.training.loggers import Curves, parts_of_runs, tables_kept_by, wandb_mode
from emotion.training.record import FinishedRun, read_record
from tests.offline_wandb import OfflineRun

KEY = {"WANDB_API_KEY": "0" * 40}
LOGIN = "machine api.wandb.ai\n  login user\n  password secret\n"


@pytest.mark.parametrize(
    ("environment", "login", "mode"),
    [
        ({}, "", "offline"),
        (KEY, "", "online"),
        ({}, LOGIN, "online"),
        ({"WANDB_BASE_URL": "https://wandb.example.org"}, LOGIN, "offline"),
        (KEY | {"WANDB_MODE": "disabled"}, "", "disabled"),
    ],
)
def test_wandb_is_online_with_a_key_or_login_for_its_server(
    monkeypatch, tmp_path, environment: dict[str, str], login: str, mode: str
):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if login:
        (tmp_path / "netrc").write_text(login)
    assert wandb_mode() == mode


def test_tables_go_to_the_runs_folder_unless_the_user_names_one(monkeypatch, tmp_path):
    run = SimpleNamespace(dir=str(tmp_path / "run" / "files"))
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    with tables_kept_by(run):
        assert os.environ["WANDB_DATA_DIR"] == str(tmp_path / "run")
    assert "WANDB_DATA_DIR" not in os.environ
    monkeypatch.setenv("WANDB_DATA_DIR", "/users/own")
    with tables_kept_by(run):
        assert os.environ["WANDB_DATA_DIR"] == "/users/own"
    assert os.environ["WANDB_DATA_DIR"] == "/users/own"


def test_parts_of_runs_are_listed_from_the_oldest_on(tmp_path):
    names = ["offline-run-20260102_000000-b", "run-20260101_000000-a", "run-20260103_000000-b"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"run-{name[-1]}.wandb").touch()
    found = [(path.name, run_id) for path, run_id in parts_of_runs(tmp_path)]
    assert found == [(names[1], "a"), (names[0], "b"), (names[2], "b")]


def test_resumed_curves_keep_the_completed_epochs(tmp_path):
    first = Curves(str(tmp_path), "curves", "")
    for epoch in range(3):
        first.log_metrics({"epoch": epoch, "val/loss": 1.0 / (epoch + 1)}, step=epoch)
    first.save()
    resumed = Curves(str(tmp_path), "curves", "")
    resumed.go_on(tmp_path, last_epoch=1)
    resumed.log_metrics({"epoch": 2, "val/loss": 0.25}, step=2)
    resumed.save()
    with open(tmp_path / "curves" / "metrics.csv") as file:
        rows = [(row["epoch"], float(row["val/loss"])) for row in csv.DictReader(file)]
    assert rows == [("0", 1.0), ("1", 0.5), ("2", 0.25)]


def test_damaged_curves_start_anew(tmp_path, caplog):
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / "metrics.csv").write_text("epoch,val/loss\n0,1.0\n1")  # half a row
    resumed = Curves(str(tmp_path), "curves", "")
    resumed.go_on(tmp_path, last_epoch=0)
    resumed.log_metrics({"epoch": 1, "val/loss": 0.25}, step=1)
    resumed.save()
    written = (tmp_path / "curves" / "metrics.csv").read_text()
    assert written.splitlines()[1:] == ["1,1,0.25"] and "metrics.csv" in caplog.text


# What a run leaves behind, of two folds in a sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, demo_cache):
    """Run two folds as a sweep of the command line, offline, with the model as artifact."""
    output = tmp_path_factory.mktemp("wandb")
    arguments = [
        "-m", "split=kfold", "split.folds=3", "split.fold=0,1", "interval=15", "sweep=two",
        "model.backbone=mobilenetv3_small_050",
        "experiment=smoke", "trainer.max_epochs=2", "logger.wandb.log_model=true",
        "logger.wandb.mistakes=4", "logger.wandb.gallery=1",
        "+callbacks.rates._target_=pytorch_lightning.callbacks.LearningRateMonitor",
        f"paths.cache={demo_cache.directory.parents[1]}", f"paths.output={output}",
    ]  # fmt: skip
    with mock.patch.object(sys, "argv", ["train.py", *arguments]):
        train()
        train()  # reports again
    return output / "sweeps" / "two"


@pytest.fixture(scope="module")
def runs(sweep) -> list[tuple[OfflineRun, FinishedRun]]:
    """Return each fold's W&B run and its record, in the order of the folds."""
    found = []
    for path in sweep.glob("*/metrics.json"):
        record = read_record(path.parent)
        (folder,) = sweep.glob(f"wandb/offline-run-*-{record.wandb.id}")
        found.append((OfflineRun(folder), record))
    assert len(found) == len(list(sweep.glob("wandb/offline-run-*")))
    return sorted(found, key=lambda run: run[1].split.fold)


@pytest.mark.slow
def test_name_tags_group_config_and_commit(runs):
    for fold, (run, record) in enumerate(runs):
        assert run.run.display_name.startswith(f"mobilenetv3_interval15_seed0_fold{fold}_")
        assert run.run.run_group == "two" and run.run.project == "emotion"
        assert set(run.run.tags) == {"demo", "kfold", "mobilenetv3", "interval15"}
        assert run.run.git.commit == (record.provenance.commit or "")
        assert run.config["split"]["fold"] == fold
        assert run.config["optimizer"] == record.settings["optimizer"]
        assert "lr" not in run.config  # the module's hyperparameters repeat the config
        assert record.wandb.id == run.run.run_id


@pytest.mark.slow
def test_nothing_is_logged_twice(runs):
    for run, record in runs:
        assert set(run.times_set.values()) == {1}
        assert len(run.logged("train/stacks")) == 1
        for key in ("test/classes", "test/confusion_table", "test/mistakes"):
            assert run.times_summarized[key] == 1, key
        for key in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            assert len(run.logged(key)) == record.epochs == 2, key
        paths = list(run.folder.rglob("*.png"))
        assert len(paths) == len({path.read_bytes() for path in paths})


@pytest.mark.slow
def test_curves_are_those_of_the_csv_file(runs, sweep):
    for run, _ in runs:
        with open(sweep / run.run.display_name / "curves" / "metrics.csv") as file:
            rows = list(csv.DictReader(file))
        assert run.charts == rows[0].keys() - {"epoch", "step"}  # numbers of tables are none
        assert [row["_step"] for row in run.history] == [0, 1, 2]  # a gallery, and the epochs
        for key in ("train/loss", "val/accuracy"):
            assert run.logged(key) == pytest.approx([float(row[key]) for row in rows if row[key]])


@pytest.mark.slow
def test_gallery_shows_the_stacks_of_the_first_epoch(runs, demo_cache, compose):
    run, record = runs[0]
    (gallery,) = run.logged("train/stacks")
    assert [caption.split(":")[0] for caption in gallery["captions"]] == list(record.labels)
    datamodule = StackDataModule(
        demo_cache, 15, instantiate(compose("train").augmentation), batch_size=4, image_px=64,
        labels=demo_cache.scheme.labels,
        split=KFold("kfold", folds=3, fold=0),
    )  # fmt: skip
    datamodule.setup()
    loader = datamodule.train_dataloader()
    keys = list(loader.sampler)
    seen = {loader.dataset.rows[key[0]].clip: loader.dataset[key][0].numpy() for key in keys}
    for caption, path in zip(gallery["captions"], gallery["filenames"], strict=True):
        clip = caption.split(": ")[1].split(",")[0]
        shown = cv2.imread(str(run.file(path)), cv2.IMREAD_GRAYSCALE)
        assert shown.shape == (96, 6 * 96)
        first = cv2.resize(seen[clip][0], (96, 96), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(shown[:, :96], first)


@pytest.mark.slow
def test_scores_matrix_and_mistakes_agree_with_predictions(runs, sweep):
    for run, _ in runs:
        folder = sweep / run.run.display_name
        predictions = read_record(folder).predictions(folder).of_split("test")
        predicted = predictions.probabilities.argmax(axis=1)
        labels = predictions.labels
        f1 = independent.f1_score(predictions.targets, predicted, average=None, labels=range(5))
        columns, rows = run.table("test/classes")
        assert [row[0] for row in rows] == list(labels)
        # a class that is neither true nor predicted has no F1; every class is true here
        assert [row[columns.index("F1")] for row in rows] == pytest.approx(f1.tolist())
        _, rows = run.table("test/confusion_table")
        counted = {(actual, predicted): n for actual, predicted, n in rows}
        expected = independent.confusion_matrix(predictions.targets, predicted, labels=range(5))
        assert expected.tolist() == [[counted[a, b] for b in labels] for a in labels]

        columns, rows = run.table("test/mistakes")
        wrong = [i for i in range(len(predicted)) if predicted[i] != predictions.targets[i]]
        wrong.sort(key=lambda i: -predictions.probabilities[i].max())
        assert [row[columns.index("clip")] for row in rows] == [
            predictions.clips[i] for i in wrong[:4]
        ]
        assert all(row[columns.index("true")] != row[columns.index("predicted")] for row in rows)
        for row in rows:
            picture = run.kept(row[columns.index("images")]["path"])
            assert picture.is_relative_to(run.folder)
            assert cv2.imread(str(picture)).shape == (96, 6 * 96, 3)


@pytest.mark.slow
def test_summary_holds_scores_parameters_and_throughput(runs):
    for run, record in runs:
        assert run.summary["parameters"] == record.parameters
        assert run.summary["test/accuracy"] == record.reported.stacks.accuracy
        for key in ("ms_per_stack", "train_stacks_per_s"):
            assert run.summary[key] == getattr(record.throughput, key) > 0


@pytest.mark.slow
def test_best_checkpoint_alone_is_an_artifact(runs, sweep):
    for run, _ in runs:
        (model,) = (artifact for artifact in run.artifacts if artifact.type == "model")
        (entry,) = model.manifest.contents
        assert "best" in model.aliases and entry.path == "best.ckpt"
        assert Path(entry.local_path).is_relative_to(sweep)  # not a copy


@pytest.mark.slow
def test_sweep_has_one_run_with_its_results(sweep, runs):
    (folder,) = sweep.glob("wandb/sweep/wandb/offline-run-*")  # although it was reported twice
    run = OfflineRun(folder)
    assert run.charts == set()
    assert run.run.display_name == "sweep two" and run.run.run_group == "two"
    columns, rows = run.table("results")
    (row,) = rows
    shown = dict(zip(columns, row, strict=True))
    assert (shown["interval"], shown["runs"]) == (15, 2)
    right = sum(record.reported.stacks.confusion[i][i] for _, record in runs for i in range(5))
    assert shown["accuracy"] == pytest.approx(right / 20)
    assert shown["accuracy low"] <= shown["accuracy"] <= shown["accuracy high"]
    (picture,) = run.logged("confusion")
    assert run.file(picture["path"]).read_bytes() == (sweep / "confusion.png").read_bytes()


@pytest.mark.slow
def test_the_confusion_matrix_is_the_chart_that_log_makes(runs, tmp_path):
    run, _ = runs[0]
    chart = wandb.plot.confusion_matrix(
        y_true=[0], preds=[0], class_names=["x"], title="test: true and predicted"
    )
    with wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True)) as logged:
        logged.log({"test/confusion": chart})
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    expected = OfflineRun(folder).config["_wandb"]["visualize"]
    assert run.config["_wandb"]["visualize"] == expected


@pytest.mark.slow
def test_a_resumed_run_continues_its_wandb_run(run_train, interrupt, tmp_path, capsys):
    def arguments(folder: str, *more: str) -> list[str]:
        run_dir = f"hydra.run.dir={tmp_path}/{folder}"
        return ["logger=default", "trainer.max_epochs=3", run_dir, *more]

    def parts(folder: str) -> list[OfflineRun]:
        """Read the parts of a folder's W&B runs, in order."""
        paths = sorted((tmp_path / folder).glob("wandb/offline-run-*"))
        return [OfflineRun(path) for path in paths]

    interrupt(lambda: run_train(*arguments("run")), epoch=1)
    interrupt(lambda: run_train(*arguments("run", "ckpt_path=last")), epoch=2)
    interrupt(lambda: run_train(*arguments("other", f"ckpt_path={tmp_path}/run/last.ckpt")), 2)
    run_train(*arguments("run", "ckpt_path=last"))
    first, second, third = parts("run")
    assert first.run.run_id == second.run.run_id == third.run.run_id
    steps = [row["_step"] for part in (first, second, third) for row in part.history]
    assert steps == [0, 1, 2, 3]
    assert [len(part.logged("train/loss")) for part in (first, second, third)] == [1, 1, 1]
    assert [len(part.logged("train/stacks")) for part in (first, second, third)] == [1, 0, 0]
    upload = f"wandb sync {first.folder} && wandb sync --append {second.folder} {third.folder}"
    assert f"{upload}\n" in capsys.readouterr().out

    run_train(
        *arguments("run")[:1], "trainer.max_epochs=1", f"hydra.run.dir={tmp_path}/run"
    )  # anew, in the same folder
    (elsewhere,), (*_, anew) = parts("other"), parts("run")
    assert len({first.run.run_id, elsewhere.run.run_id, anew.run.run_id}) == 3
    assert len(anew.logged("train/stacks")) == 1
    assert f"wandb sync {anew.folder}\n" in capsys.readouterr().out


@pytest.mark.slow
def test_a_cell_of_a_sweep_continues_or_replaces_its_wandb_run(run_train, interrupt, tmp_path):
    arguments = ("hydra.mode=MULTIRUN", "logger=wandb", "sweep=s", "trainer.max_epochs=2")
    resumed = (*arguments, "seed=0", "ckpt_path=last")

    def runs(seed: int) -> list[OfflineRun]:
        """Read the parts of the W&B runs of a seed, in order."""
        found = map(OfflineRun, sorted((tmp_path / "sweeps/s/wandb").glob("offline-run-*")))
        return [run for run in found if run.config["seed"] == seed]

    def sweep(*arguments: str) -> None:
        with pytest.raises(SystemExit):  # a cell fails
            run_train(*arguments)

    interrupt(lambda: sweep(*arguments, "seed=0,1"), epoch=1, raises=False)
    assert len(runs(seed=0)) == len(runs(seed=1)) == 1
    run_train(*resumed)
    first, second = runs(seed=0)
    assert first.run.run_id == second.run.run_id
    assert [row["_step"] for part in (first, second) for row in part.history] == [0, 1, 2]
    run_train(*arguments, "seed=1")  # from its first epoch
    (anew,) = runs(seed=1)
    assert [row["_step"] for row in anew.history] == [0, 1, 2]
    assert len(runs(seed=0)) == 2
