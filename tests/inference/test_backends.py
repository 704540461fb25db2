"""Both kinds of model files load and classify, anything else is an error in one line."""

import pickle
import re
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion.errors import DamagedFile, UserError
from emotion.inference.backends import backend_name, find_model, load_model
from emotion.inference.onnx_file import with_digest
from emotion.models.lightning_module import EmotionModule
from emotion.models.recipe import Recipe
from emotion.training.finished_run import Run
from emotion.training.record import read_record, write_record


def random_stacks(num: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(num, 9, 64, 64), dtype=np.uint8)


@pytest.fixture
def copied(run_dir: Path, tmp_path: Path) -> Path:
    """A run's folder that a test may damage."""
    shutil.copytree(run_dir, tmp_path / "run")
    return tmp_path / "run"


def test_a_checkpoint_gives_the_logits_of_its_module(run_dir: Path):
    backend, recipe = load_model(find_model(run_dir))
    module = EmotionModule.load_from_checkpoint(run_dir / "best.ckpt", map_location="cpu").eval()
    stacks = random_stacks(3)
    with torch.no_grad():
        expected = module(torch.from_numpy(stacks)).numpy()
    np.testing.assert_allclose(backend.classify(stacks), expected, atol=1e-5)
    assert recipe == Recipe.read(run_dir / "recipe.json")


def test_the_head_gives_the_logits_of_the_features(run_dir: Path):
    backend, _ = load_model(find_model(run_dir))
    logits, features = backend.describe(random_stacks(3))
    with torch.no_grad():
        expected = backend.module.network.head(torch.from_numpy(features).float()).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert features.dtype == np.float64 and features.shape == (3, 288)


def test_classifying_restores_the_number_of_threads(run_dir: Path):
    backend, _ = load_model(find_model(run_dir), num_threads=2)
    before = torch.get_num_threads()
    backend.classify(random_stacks(1))
    assert torch.get_num_threads() == before


def write_onnx(path: Path, **metadata: str) -> np.ndarray:
    """Write a network that weighs each image's mean gray level; returns the (9, 5) weights."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weights = np.random.default_rng(1).normal(size=(9, 5)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Cast", ["stacks"], ["gray"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("ReduceMean", ["gray"], ["features"], axes=[2, 3], keepdims=0),
            onnx.helper.make_node("MatMul", ["features", "weights"], ["logits"]),
        ],
        "weigher",
        [onnx.helper.make_tensor_value_info("stacks", onnx.TensorProto.UINT8, ["n", 9, 64, 64])],
        [
            onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 5]),
            onnx.helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["n", 9]),
        ],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.helper.set_model_props(model, metadata)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(with_digest(model.SerializeToString()))
    return weights


def test_an_onnx_file_is_classified_with_its_own_recipe(run_dir: Path, tmp_path: Path):
    recipe = Recipe.read(run_dir / "recipe.json")
    weights = write_onnx(tmp_path / "x" / "model.onnx", recipe=recipe.to_json())
    for named in (tmp_path / "x", tmp_path / "x" / "model.onnx"):
        backend, read = load_model(find_model(named))
        stacks = random_stacks(2)
        expected = stacks.mean(axis=(2, 3)) @ weights
        np.testing.assert_allclose(backend.classify(stacks), expected, rtol=1e-3)
        logits, features = backend.describe(stacks)
        np.testing.assert_allclose(features, stacks.mean(axis=(2, 3)), rtol=1e-5)
        np.testing.assert_array_equal(logits, backend.classify(stacks))
        assert read == recipe and backend.person_model is None


def test_without_onnx_runtime_the_error_names_the_requirements(tmp_path: Path, monkeypatch):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("emotion.inference.backends.version", missing)
    with pytest.raises(UserError, match=r"requirements-onnx\.txt"):
        backend_name(tmp_path / "model.onnx")


# Where a model is


def test_a_run_is_its_recorded_checkpoint(finished_run: Path, tmp_path: Path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    shutil.copy(run / "best.ckpt", run / "other.ckpt")
    assert find_model(run) == run / "best.ckpt"
    assert find_model(run / "other.ckpt") == run / "other.ckpt"
    (run / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"best\.ckpt, .*other\.ckpt"):
        find_model(run)


@pytest.mark.parametrize("name", ["../best.ckpt", "/tmp/best.ckpt", "a/../../best.ckpt", "x.pkl"])
def test_a_recorded_checkpoint_outside_of_the_run_is_an_error(
    finished_run: Path, tmp_path: Path, name: str
):
    run = shutil.copytree(finished_run, tmp_path / "run")
    write_record(run, read_record(run).model_copy(update={"checkpoint": name}))
    for read in (find_model, Run.read):
        with pytest.raises(UserError, match="checkpoint"):
            read(run)


def test_a_wrong_path_is_an_error_that_names_it(copied: Path, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "notes.txt", tmp_path / "empty", tmp_path):
        with pytest.raises(UserError, match=re.escape(f"model_path={path}")):
            find_model(path)


# Damaged and foreign files


class Trap:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def rewrite(copied: Path, change: Callable[[dict], None]) -> None:
    checkpoint = torch.load(copied / "best.ckpt", weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, copied / "best.ckpt")


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (lambda run: (run / "best.ckpt").write_bytes(b""), "best.ckpt"),
        (lambda run: (run / "best.ckpt").write_text("no model"), "best.ckpt"),
        (
            lambda run: (run / "best.ckpt").write_bytes((run / "best.ckpt").read_bytes()[:50_000]),
            "best.ckpt",
        ),
        (lambda run: torch.save({"a": torch.ones(2)}, run / "best.ckpt"), "best.ckpt"),
        (lambda run: torch.save([1], run / "best.ckpt"), "best.ckpt"),
        (lambda run: rewrite(run, lambda c: c["state_dict"].popitem()), "best.ckpt"),
        (
            lambda run: rewrite(run, lambda c: c["hyper_parameters"].update(labels=["a", "b"])),
            "recipe.json",
        ),
        (lambda run: rewrite(run, lambda c: c["hyper_parameters"].update(backbone="none")), "none"),
        (lambda run: (run / "recipe.json").unlink(), "recipe.json"),
        (lambda run: (run / "recipe.json").write_text("{}"), "recipe.json"),
        (
            lambda run: (
                Recipe.read(run / "recipe.json")
                .model_copy(update={"interval": 15})
                .write(run / "recipe.json")
            ),
            "recipe.json",
        ),
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_an_error_in_one_line(
    copied: Path, damage: Callable[[Path], None], file: str
):
    damage(copied)
    with pytest.raises(UserError, match=re.escape(file)) as caught:
        load_model(find_model(copied))
    assert "\n" not in str(caught.value)


def test_a_foreign_onnx_file_is_an_error_in_one_line(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_text("no model")
    with pytest.raises(UserError, match=r"model\.onnx") as caught:
        load_model(find_model(tmp_path / "model.onnx"))
    assert "\n" not in str(caught.value)


def test_code_in_a_checkpoint_is_not_executed(copied: Path, tmp_path: Path):
    trap = Trap(tmp_path / "sprung")
    for write in (torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))):
        write({"hyper_parameters": {}, "state_dict": {}, "trap": trap}, copied / "best.ckpt")
        with pytest.raises(UserError, match=r"best\.ckpt"):
            load_model(find_model(copied))
        assert not trap.path.exists()


def test_a_checkpoint_of_another_run_is_refused(finished_run: Path, tmp_path: Path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    load_model(run / "best.ckpt")
    (run / "best.ckpt").write_bytes((run / "best.ckpt").read_bytes() + b"x")
    with pytest.raises(DamagedFile, match=r"best\.ckpt"):
        load_model(run / "best.ckpt")
