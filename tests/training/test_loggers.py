"""W&B: when it is online, and what it holds of a run and of a sweep, read back from its files."""

import csv
import json
import sys
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
from hydra.utils import instantiate
from sklearn import metrics as independent

from emotion.data.datamodule import StackDataModule
from emotion.data.split import KFold
from emotion.errors import UserError
from emotion.evaluation.predictions import Predictions
from emotion.training.loggers import Wandb, wandb_mode
from tests.offline_wandb import OfflineRun
from train import train

pytestmark = pytest.mark.slow


@pytest.fixture
def no_login(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path


def test_offline_without_a_key(no_login):
    assert wandb_mode() == "offline"


def test_online_with_a_key(no_login, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert wandb_mode() == "online"


def test_online_with_a_login(no_login):
    (no_login / "netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    assert wandb_mode() == "online"


def test_login_to_another_server_does_not_count(no_login, monkeypatch):
    (no_login / "netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert wandb_mode() == "offline"


def test_the_environment_has_the_last_word(no_login, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"


# What a run leaves behind


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, demo_cache):
    """Run two folds as a sweep of the command line, offline, with the model as artifact."""
    output = tmp_path_factory.mktemp("wandb")
    arguments = [
        "-m", "split=kfold", "split.folds=3", "split.fold=0,1", "interval=15", "sweep=two",
        "experiment=smoke", "trainer.max_epochs=2", "logger.wandb.log_model=true",
        "logger.wandb.mistakes=4", "logger.wandb.gallery=1",
        f"paths.cache={demo_cache.directory.parents[1]}", f"paths.output={output}",
    ]  # fmt: skip
    with mock.patch.object(sys, "argv", ["train.py", *arguments]):
        train()
        train()  # nothing is left to do but the report
    return output / "sweeps" / "two"


@pytest.fixture(scope="module")
def runs(sweep):
    """Each fold's W&B run and its `metrics.json`, in the order of the folds."""
    found = []
    for path in sweep.glob("*/metrics.json"):
        (folder,) = path.parent.glob("wandb/offline-run-*")
        found.append((OfflineRun(folder), json.loads(path.read_text())))
    return sorted(found, key=lambda run: run[1]["split"]["fold"])


def test_name_tags_group_config_and_commit(runs):
    for fold, (run, record) in enumerate(runs):
        assert run.run.display_name.startswith(f"mobilenetv3_interval15_seed0_fold{fold}_")
        assert run.run.run_group == "two" and run.run.project == "emotion"
        assert set(run.run.tags) == {"demo", "kfold", "mobilenetv3", "interval15"}
        assert run.run.git.commit == record["commit"]
        assert run.config["split"]["fold"] == fold
        assert run.config["optimizer"] == record["settings"]["optimizer"]
        assert "lr" not in run.config  # of the module's own, which would say the same again
        assert record["wandb"]["id"] == run.run.run_id


def test_nothing_is_logged_twice(runs):
    for run, record in runs:
        assert set(run.times_set.values()) == {1}
        for key in ("train/stacks", "test/classes", "test/confusion_table", "test/mistakes"):
            assert len(run.logged(key)) == 1, key
        for key in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            assert len(run.logged(key)) == record["epochs"] == 2, key
        paths = list(run.folder.rglob("*.png"))
        assert len(paths) == len({path.read_bytes() for path in paths})


def test_curves_are_those_of_the_csv_file(runs, sweep):
    for run, _ in runs:
        (path,) = (
            p for p in sweep.glob("*/curves/metrics.csv") if run.folder.is_relative_to(p.parents[1])
        )
        with open(path) as file:
            rows = list(csv.DictReader(file))
        for key in ("train/loss", "val/accuracy"):
            assert run.logged(key) == pytest.approx([float(row[key]) for row in rows if row[key]])


def test_gallery_holds_what_the_first_epoch_trains_on(runs, demo_cache, compose):
    run, record = runs[0]
    (gallery,) = run.logged("train/stacks")
    assert [caption.split(":")[0] for caption in gallery["captions"]] == record["labels"]
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


def test_scores_matrix_and_mistakes_agree_with_predictions(runs, sweep):
    for run, _ in runs:
        (folder,) = (p.parent for p in sweep.glob("*/metrics.json")
                     if run.folder.is_relative_to(p.parent))  # fmt: skip
        predictions = Predictions.read(folder / "predictions.csv").of_split("test")
        said = predictions.probabilities.argmax(axis=1)
        labels = predictions.labels
        f1 = independent.f1_score(predictions.targets, said, average=None, labels=range(5))
        columns, rows = run.table("test/classes")
        assert [row[0] for row in rows] == labels
        # a class that is neither true nor predicted has no F1; every class is true here
        assert [row[columns.index("F1")] for row in rows] == pytest.approx(f1.tolist())
        _, rows = run.table("test/confusion_table")
        counted = {(actual, predicted): n for actual, predicted, n in rows}
        expected = independent.confusion_matrix(predictions.targets, said, labels=range(5))
        assert expected.tolist() == [[counted[a, b] for b in labels] for a in labels]

        columns, rows = run.table("test/mistakes")
        wrong = [i for i in range(len(said)) if said[i] != predictions.targets[i]]
        wrong.sort(key=lambda i: -predictions.probabilities[i].max())
        assert [row[columns.index("clip")] for row in rows] == [
            predictions.clips[i] for i in wrong[:4]
        ]
        assert all(row[columns.index("true")] != row[columns.index("predicted")] for row in rows)
        for row in rows:
            picture = run.kept(row[columns.index("images")]["path"])
            assert picture.is_relative_to(run.folder)
            assert cv2.imread(str(picture)).shape == (96, 6 * 96, 3)


def test_summary_holds_scores_parameters_and_throughput(runs):
    for run, record in runs:
        assert run.summary["parameters"] == record["parameters"]
        assert run.summary["test/accuracy"] == record["accuracy"]
        for key in ("ms_per_stack", "train_stacks_per_s"):
            assert run.summary[key] == record["throughput"][key] > 0


def test_best_checkpoint_alone_is_an_artifact(runs, sweep):
    for run, _ in runs:
        (model,) = (artifact for artifact in run.artifacts if artifact.type == "model")
        (entry,) = model.manifest.contents
        assert "best" in model.aliases and entry.path == "best.ckpt"
        assert Path(entry.local_path).is_relative_to(sweep)  # not a copy


def test_sweep_has_one_run_with_its_results(sweep, runs):
    (folder,) = sweep.glob("wandb/offline-run-*")  # though it was reported twice
    run = OfflineRun(folder)
    assert run.run.display_name == "sweep two" and run.run.run_group == "two"
    columns, rows = run.table("results")
    (row,) = rows
    shown = dict(zip(columns, row, strict=True))
    assert (shown["model"], shown["interval"], shown["runs"]) == ("MobileNetV3-Large", 15, 2)
    right = sum(record["confusion"][i][i] for _, record in runs for i in range(5))
    assert shown["accuracy"] == pytest.approx(right / 20)
    assert shown["accuracy low"] <= shown["accuracy"] <= shown["accuracy high"]
    (picture,) = run.logged("confusion")
    assert run.file(picture["path"]).read_bytes() == (sweep / "confusion.png").read_bytes()


def test_run_that_goes_on_is_one_run_of_wandb(tmp_path, demo_cache, monkeypatch, capsys):
    def parts(*arguments, folder="run"):
        """Train and give the ids, the history's rows and the gallery of each part, in order."""
        small = ["data.max_clips_per_class=2", "loader.batch_size=4", "loader.image_px=64",
                 "loader.num_workers=0", "model.pretrained=false", "interval=15",
                 "model.backbone=mobilenetv3_small_050"]  # fmt: skip
        paths = [
            f"paths.cache={demo_cache.directory.parents[1]}",
            f"hydra.run.dir={tmp_path}/{folder}",
        ]
        monkeypatch.setattr("sys.argv", ["train.py", *small, *paths, *arguments])
        train()
        return [
            OfflineRun(path) for path in sorted((tmp_path / folder).glob("wandb/offline-run-*"))
        ]

    parts("trainer.max_epochs=1")
    parts("trainer.max_epochs=2", "ckpt_path=last")
    first, second, third = parts("trainer.max_epochs=3", "ckpt_path=last")
    assert first.run.run_id == second.run.run_id == third.run.run_id
    steps = [row["_step"] for part in (first, second, third) for row in part.history]
    assert len(steps) == len(set(steps)) and steps == sorted(steps)
    assert [len(part.logged("train/loss")) for part in (first, second, third)] == [1, 1, 1]
    assert [len(part.logged("train/stacks")) for part in (first, second, third)] == [1, 0, 0]
    upload = f"wandb sync {first.folder} && wandb sync --append {second.folder} {third.folder}"
    assert f"upload it with: {upload}\n" in capsys.readouterr().out

    (elsewhere,) = parts(
        "trainer.max_epochs=4", f"ckpt_path={tmp_path}/run/last.ckpt", folder="other"
    )
    *_, anew = parts("trainer.max_epochs=1")
    assert len({first.run.run_id, elsewhere.run.run_id, anew.run.run_id}) == 3
    assert len(anew.logged("train/stacks")) == 1
    assert f"upload it with: wandb sync {anew.folder}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"gallery": -1}, r"logger\.wandb\.gallery=-1: it is 0 \(show none\) or above"),
        ({"mistakes": -3}, r"logger\.wandb\.mistakes=-3: it is 0"),
        ({"log_model": "all"}, r"logger\.wandb\.log_model=all: it is true .* or false"),
    ],
)
def test_wrong_setting_is_named(tmp_path, setting, message):
    with pytest.raises(UserError, match=message):
        Wandb(str(tmp_path), **setting)
