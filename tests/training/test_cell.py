"""Which settings make two runs the same cell, and which another."""

import json
from pathlib import Path

import pytest

from emotion.training.cell import cell_id, cell_name, clear, why_run
from emotion.training.record import read_record, write_record

SAME = [
    ["paths.cache=/elsewhere", "paths.output=/elsewhere"],
    ["sweep=another"],
    ["logger=none"],
    ["loader.num_workers=0", "num_workers=3"],
    ["executor=dask", "executor.address=tcp://host:1"],
    ["hydra/launcher=joblib"],
    ["hparams=optuna"],
]
OTHERS = [
    ["seed=1"],
    ["interval='5'"],
    ["optimizer.lr=2e-4"],
    ["augmentation=strong"],
    ["augmentation.strength=0.5"],
    ["trainer.max_epochs=2"],
    ["data.min_frames=80"],
    ["split=kfold"],
    ["split=kfold", "split.fold=1"],
    ["callbacks.lines=null"],
]


@pytest.mark.parametrize("overrides", SAME, ids=str)
def test_places_names_and_processes_make_no_other_cell(compose, overrides: list[str]):
    assert cell_id(compose("train", overrides)) == cell_id(compose("train"))


def test_whatever_may_change_a_result_makes_another_cell(compose):
    ids = [cell_id(compose("train", overrides)) for overrides in [[], *OTHERS]]
    assert len(set(ids)) == len(ids)


def test_folder_is_named_for_people_too(compose):
    cfg = compose("train", ["split=kfold", "split.fold=2", "seed=3"], return_hydra_config=True)
    assert cfg.hydra.sweep.subdir == f"mobilenetv3_interval10_seed3_fold2_{cell_id(cfg)}"
    assert cell_name(compose("train")).startswith("mobilenetv3_interval10_seed0_")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"accuracy": 1}', "nul\0"])
def test_record_that_is_not_whole_is_none(tmp_path: Path, text: str):
    assert read_record(tmp_path) is None
    (tmp_path / "metrics.json").write_text(text)
    assert read_record(tmp_path) is None


def test_record_is_whole_or_not_there(tmp_path: Path):
    write_record(tmp_path, {"status": "failed"})
    with pytest.raises(TypeError):
        write_record(tmp_path, {"status": "finished", "broken": object()})
    assert read_record(tmp_path) == {"status": "failed"}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_why_a_cell_runs_again(compose, demo_cache, tmp_path: Path):
    cache = demo_cache.directory.parents[1]
    cfg = compose("train", ["experiment=smoke", f"paths.cache={cache}"])
    finished = {
        "status": "finished",
        "cell": cell_id(cfg),
        "manifest_sha256": demo_cache.manifest_sha256(),
    }
    assert why_run(cfg, tmp_path) == "new"
    (tmp_path / ".hydra").mkdir()
    assert why_run(cfg, tmp_path) == "cut off"
    for record, why in [
        (finished, None),
        (finished | {"cell": "00000000"}, "another config"),
        (finished | {"status": "failed"}, "failed before"),
        (finished | {"manifest_sha256": None}, "made from other stacks"),
    ]:
        write_record(tmp_path, record)
        assert why_run(cfg, tmp_path) == why


def test_clearing_keeps_config_log_and_lock_and_training_if_it_goes_on(tmp_path: Path):
    for name in (".hydra/config.yaml", "wandb/run/file", "curves/metrics.csv"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    for name in ("train.log", ".cell.lock", "best.ckpt", "last.ckpt", "metrics.json", "error.txt"):
        (tmp_path / name).write_text(json.dumps({}))
    (tmp_path / ".last.machine-123.ckpt").write_text("half")
    kept, training = {".hydra", "train.log", ".cell.lock"}, {"best.ckpt", "last.ckpt"}
    clear(tmp_path, but_for_training=True)
    assert {path.name for path in tmp_path.iterdir()} == kept | training | {"wandb", "curves"}
    clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
