"""Cell ids: which settings make two runs the same cell; and the state of a cell's folder."""

import copy
import shutil
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf, open_dict

from emotion.training.cell import cell_id, cell_name, clear, why_run, without_targets
from emotion.training.record import FailedRun, read_record, write_record

SAME = [
    *("paths.cache=/elsewhere", "paths.output=/elsewhere", "sweep=another", "ckpt_path=last"),
    *("logger=none", "loader.num_workers=0", "num_workers=3"),
    *("executor=dask", "executor.address=tcp://host:1", "hydra/launcher=joblib"),
]
OTHERS = {
    "seed": 1,
    "interval.frames": 5,
    "optimizer.lr": 2e-4,
    "augmentation.strength": 0.5,
    "trainer.max_epochs": 2,
    "data.min_frames": 80,
    "callbacks.lines": None,
    "ckpt_path": "/elsewhere/last.ckpt",
}


@pytest.fixture
def cfg(compose) -> DictConfig:
    return compose("train")


def test_paths_names_and_worker_counts_do_not_change_the_id(compose, cfg):
    assert cell_id(compose("train", SAME)) == cell_id(cfg)


def test_what_can_change_a_result_changes_the_id(compose, cfg):
    configs = [cfg, compose("train", ["augmentation=strong"]), compose("train", ["split=kfold"])]
    for key, value in OTHERS.items():
        configs.append(copy.deepcopy(cfg))
        OmegaConf.update(configs[-1], key, value)
    configs.append(copy.deepcopy(configs[2]))
    configs[-1].split.fold = 1
    assert len(set(map(cell_id, configs))) == len(configs)


def test_the_spelling_of_a_class_does_not_change_the_id(cfg):
    moved = copy.deepcopy(cfg)
    moved.augmentation._target_ = "elsewhere.Augmentation"
    moved.callbacks.best._target_ = "elsewhere.RunCheckpoint"
    moved.trainer._target_ = "elsewhere.Trainer"
    assert cell_id(moved) == cell_id(cfg)
    nested = {"a": [{"_target_": "x", "b": {"_target_": "y", "c": 1}}], "_target_": "z"}
    assert without_targets(nested) == {"a": [{"b": {"c": 1}}]}


def test_the_content_of_pretrained_weights_is_part_of_the_id(cfg, tmp_path: Path):
    default = cell_id(cfg)
    first, other = tmp_path / "first.ckpt", tmp_path / "copy.ckpt"
    first.write_bytes(b"weights")
    other.write_bytes(b"weights")

    def with_weights(path: Path) -> str:
        cfg.model.pretrained = str(path)
        return cell_id(cfg)

    before = with_weights(first)
    assert with_weights(other) == before != default
    first.write_bytes(b"other weights")
    assert with_weights(first) != before


def test_the_folder_is_named_after_the_main_settings(compose):
    cfg = compose("train", ["split=kfold", "split.fold=2", "seed=3"], return_hydra_config=True)
    assert cfg.hydra.sweep.subdir == f"mobilenetv3_interval10_seed3_fold2_{cell_id(cfg)}"
    with open_dict(cfg):
        cfg.split.pop("fold")
    assert cell_name(cfg) == f"mobilenetv3_interval10_seed3_{cell_id(cfg)}"


def test_why_a_cell_runs_again(compose, demo_cache, finished_run: Path, tmp_path: Path):
    cache = demo_cache.directory.parents[1]
    cfg = compose("train", ["experiment=smoke", f"paths.cache={cache}"])
    assert why_run(cfg, tmp_path) == "new"
    (tmp_path / ".hydra").mkdir()
    assert why_run(cfg, tmp_path) == "cut off"
    finished = read_record(finished_run).model_copy(update={"cell": cell_id(cfg)})
    for name in finished.files:
        shutil.copyfile(finished_run / name, tmp_path / name)
    head = {key: getattr(finished, key) for key in ("cell", "model", "backbone", "model_title")}
    head |= {key: getattr(finished, key) for key in ("interval", "seed", "data", "labels", "split")}
    for record, why in [
        (finished, None),
        (finished.model_copy(update={"cell": "00000000"}), "another config"),
        (finished.model_copy(update={"manifest_sha256": ""}), "made from other stacks"),
        (FailedRun(**head, error="broken"), "failed before"),
    ]:
        write_record(tmp_path, record)
        assert why_run(cfg, tmp_path) == why
    write_record(tmp_path, finished)
    (tmp_path / "recipe.json").write_text("{}")
    assert why_run(cfg, tmp_path) == "damaged"
    (tmp_path / "metrics.json").write_text('{"status": "fin')  # as a full disk may leave it
    assert why_run(cfg, tmp_path) == "damaged"


def test_clearing_keeps_config_log_and_lock_and_training_if_it_resumes(tmp_path: Path):
    for name in (".hydra/config.yaml", "wandb/run/file", "curves/metrics.csv"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    for name in ("train.log", ".cell.lock", "best.ckpt", "last.ckpt", "metrics.json", "error.txt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / ".last.machine-123.ckpt").write_text("half")
    kept, training = {".hydra", "train.log", ".cell.lock"}, {"best.ckpt", "last.ckpt"}
    clear(tmp_path, but_for_training=True)
    assert {path.name for path in tmp_path.iterdir()} == kept | training | {"wandb", "curves"}
    clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
