"""Models on disk: both kinds load and answer, anything else is told in a line."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion.errors import UserError
from emotion.inference.backends import backend_name, find_model, load_model
from emotion.inference.onnx_file import with_digest
from emotion.models.lightning_module import EmotionModule
from emotion.models.recipe import Recipe


def random_stacks(num: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(num, 9, 64, 64), dtype=np.uint8)


@pytest.fixture
def copied(run_dir: Path, tmp_path: Path) -> Path:
    """A run's folder that a test may damage."""
    shutil.copytree(run_dir, tmp_path / "run")
    return tmp_path / "run"


def test_a_checkpoint_answers_as_its_module(run_dir: Path):
    runtime, recipe = load_model(find_model(run_dir))
    module = EmotionModule.load_from_checkpoint(run_dir / "best.ckpt", map_location="cpu").eval()
    stacks = random_stacks(3)
    with torch.no_grad():
        expected = module(torch.from_numpy(stacks)).numpy()
    np.testing.assert_allclose(runtime.classify(stacks), expected, atol=1e-5)
    assert runtime.name == f"PyTorch {torch.__version__.split('+')[0]}"
    assert recipe == Recipe.read(run_dir / "recipe.json")


def test_it_leaves_the_number_of_threads_to_others(run_dir: Path):
    runtime, _ = load_model(find_model(run_dir), num_threads=2)
    before = torch.get_num_threads()
    runtime.classify(random_stacks(1))
    assert torch.get_num_threads() == before


def write_onnx(path: Path, **metadata: str) -> np.ndarray:
    """Write a network that weighs each image's mean gray level; returns the (9, 5) weights."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weights = np.random.default_rng(1).normal(size=(9, 5)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Cast", ["stacks"], ["gray"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("ReduceMean", ["gray"], ["mean"], axes=[2, 3], keepdims=0),
            onnx.helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        ],
        "weigher",
        [onnx.helper.make_tensor_value_info("stacks", onnx.TensorProto.UINT8, ["n", 9, 64, 64])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 5])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.helper.set_model_props(model, metadata)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(with_digest(model.SerializeToString()))
    return weights


def test_an_onnx_file_answers_with_the_recipe_inside(run_dir: Path, tmp_path: Path):
    recipe = Recipe.read(run_dir / "recipe.json")
    weights = write_onnx(tmp_path / "x" / "model.onnx", recipe=recipe.to_json())
    for named in (tmp_path / "x", tmp_path / "x" / "model.onnx"):
        runtime, read = load_model(find_model(named))
        stacks = random_stacks(2)
        expected = stacks.mean(axis=(2, 3)) @ weights
        np.testing.assert_allclose(runtime.classify(stacks), expected, rtol=1e-3)
        assert read == recipe and runtime.name.startswith("ONNX Runtime 1")


def test_without_onnx_runtime_the_remedy_is_told(tmp_path: Path, monkeypatch):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("emotion.inference.backends.version", missing)
    with pytest.raises(UserError, match="needs ONNX Runtime: pip install"):
        backend_name(tmp_path / "model.onnx")


# Where a model is


def test_a_run_is_represented_by_the_checkpoint_that_it_was_judged_by(copied: Path):
    shutil.copy(copied / "best.ckpt", copied / "last.ckpt")
    with pytest.raises(UserError, match=r"there is best\.ckpt, last\.ckpt in that folder"):
        find_model(copied)
    (copied / "metrics.json").write_text(json.dumps({"checkpoint": "best.ckpt"}))
    assert find_model(copied) == copied / "best.ckpt"
    assert find_model(copied / "last.ckpt") == copied / "last.ckpt"


def test_a_wrong_path_is_told(copied: Path, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path / "notes.txt", "neither a checkpoint (.ckpt) nor an ONNX file"),
        (tmp_path / "empty", "there is no .ckpt and no .onnx in that folder"),
        (tmp_path, "holds 1 runs: name one of them: run"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
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
    ("damage", "message"),
    [
        (lambda run: (run / "best.ckpt").write_bytes(b""), "is damaged, or no model of ours"),
        (lambda run: (run / "best.ckpt").write_text("no model"), "is damaged, or no model of ours"),
        (
            lambda run: (run / "best.ckpt").write_bytes((run / "best.ckpt").read_bytes()[:50_000]),
            "is damaged, or no model of ours",
        ),
        (lambda run: torch.save({"a": torch.ones(2)}, run / "best.ckpt"), "it has no 'hyper_par"),
        (lambda run: torch.save([1], run / "best.ckpt"), "is damaged, or no model of ours"),
        (
            lambda run: rewrite(run, lambda c: c["state_dict"].popitem()),
            "is damaged, or no model of ours: Error(s) in loading state_dict",
        ),
        (
            lambda run: rewrite(run, lambda c: c["hyper_parameters"].update(labels=["a", "b"])),
            "tells a, b from 9 images, recipe.json says Anger, Happy, Neutral, Sad, Shock from 9",
        ),
        (
            lambda run: rewrite(run, lambda c: c["hyper_parameters"].update(backbone="none")),
            "timm has no such network",
        ),
        (lambda run: (run / "recipe.json").unlink(), "no recipe.json in"),
        (lambda run: (run / "recipe.json").write_text("{}"), "is no recipe of ours, or damaged"),
        (
            lambda run: (
                Recipe.read(run / "recipe.json")
                .model_copy(update={"interval": 15})
                .write(run / "recipe.json")
            ),
            "from 9 images, recipe.json says Anger, Happy, Neutral, Sad, Shock from 6",
        ),
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_told_in_a_line(
    copied: Path, damage: Callable[[Path], None], message: str
):
    damage(copied)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_model(find_model(copied))
    assert "\n" not in str(caught.value)


def test_a_foreign_onnx_file_is_told_in_a_line(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_text("no model")
    with pytest.raises(UserError, match=r"model\.onnx is no ONNX model, or damaged") as caught:
        load_model(find_model(tmp_path / "model.onnx"))
    assert "\n" not in str(caught.value)


def test_code_in_a_checkpoint_is_not_run(copied: Path, tmp_path: Path):
    trap = Trap(tmp_path / "sprung")
    for write in (torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))):
        write({"hyper_parameters": {}, "state_dict": {}, "trap": trap}, copied / "best.ckpt")
        with pytest.raises(UserError, match="is damaged, or no model of ours"):
            load_model(find_model(copied))
        assert not trap.path.exists()
