"""ONNX files: anything but a whole file of this project is an error in one line."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emotion.errors import DamagedFile, UserError
from emotion.inference.backends import OnnxBackend, load_model
from emotion.inference.onnx_file import read_onnx, with_digest
from emotion.models.recipe import Recipe

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def recipe(run_dir: Path) -> Recipe:
    return Recipe.read(run_dir / "recipe.json")


@pytest.fixture
def model(recipe: Recipe) -> "onnx.ModelProto":
    """A network that weighs each image's mean gray level, with a recipe inside."""
    weights = np.arange(45, dtype=np.float32).reshape(9, 5) / 255
    helper, types = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["stacks"], ["gray"], to=types.FLOAT),
            helper.make_node("ReduceMean", ["gray"], ["features"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["features", "weights"], ["logits"]),
        ],
        "weigher",
        [helper.make_tensor_value_info("stacks", types.UINT8, ["n", 9, 64, 64])],
        [
            helper.make_tensor_value_info("logits", types.FLOAT, ["n", 5]),
            helper.make_tensor_value_info("features", types.FLOAT, ["n", 9]),
        ],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(made, {"recipe": recipe.to_json()})
    return made


@pytest.fixture
def write(tmp_path: Path) -> Callable[["onnx.ModelProto"], Path]:
    def write_file(model: "onnx.ModelProto") -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(with_digest(model.SerializeToString()))
        return path

    return write_file


def refused(path: Path, text: str = "model.onnx") -> None:
    with pytest.raises(UserError, match=re.escape(text)) as caught:
        OnnxBackend(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_it_classifies_and_returns_the_recipe(model, write, recipe: Recipe):
    backend = OnnxBackend(write(model))
    stacks = np.random.default_rng(0).integers(256, size=(3, 9, 64, 64), dtype=np.uint8)
    weights = np.arange(45).reshape(9, 5) / 255
    expected = stacks.mean(axis=(2, 3)) @ weights
    np.testing.assert_allclose(backend.classify(stacks), expected, rtol=1e-5)
    last = stacks.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)  # channels last in memory
    np.testing.assert_allclose(backend.classify(last), expected, rtol=1e-5)
    assert backend.recipe == recipe


def test_the_digest_is_a_metadata_entry_for_other_readers(model, write):
    body = model.SerializeToString()
    entries = {entry.key: entry.value for entry in onnx.load(write(model)).metadata_props}
    assert entries.keys() == {"recipe", "sha256"}
    assert entries["sha256"] == hashlib.sha256(body).hexdigest()


def test_a_changed_bit_is_found_wherever_it_is(model, write):
    path = write(model)
    whole = path.read_bytes()
    for place in range(0, len(whole), 41):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(UserError) as caught:
            read_onnx(path)
        assert "\n" not in str(caught.value), place


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_an_error(model, write, share: float):
    path = write(model)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(path)


@pytest.mark.parametrize("content", [b"no model", bytes(1000), b"PK\x03\x04", b"\xff" * 100])
def test_other_files_are_errors(tmp_path: Path, content: bytes):
    (tmp_path / "model.onnx").write_bytes(content)
    refused(tmp_path / "model.onnx")


def test_a_missing_file_is_an_error(tmp_path: Path):
    refused(tmp_path / "model.onnx")


def test_a_model_without_a_recipe_is_an_error(model, write):
    del model.metadata_props[:]
    refused(write(model), "recipe")


@pytest.mark.parametrize("recipe_json", ['{"format": 1}', '{"version": 99}', "no JSON"])
def test_a_foreign_or_old_recipe_is_an_error(model, write, recipe_json: str):
    model.metadata_props[0].value = recipe_json
    refused(write(model), "recipe")


@pytest.mark.parametrize(
    "change", [{"interval": 15}, {"image_px": 96}, {"inputs": "landmarks"}, {"labels": ("a", "b")}]
)
def test_a_model_that_does_not_match_its_recipe_is_an_error(
    model, write, recipe: Recipe, change: dict
):
    model.metadata_props[0].value = recipe.model_copy(update=dict(**change)).to_json()
    refused(write(model))


# A file that wants more than itself


@pytest.mark.parametrize("where", ["weights", "constant", "inner graph"])
def test_data_outside_the_file_is_an_error(model, write, tmp_path: Path, where: str):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.ones(45, np.float32).tobytes())
    tensor = model.graph.initializer.pop(0)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", str(secret)), ("length", "180")):
        tensor.external_data.add(key=key, value=value)
    constant = onnx.helper.make_node("Constant", [], ["weights"], value=tensor)
    if where == "weights":
        model.graph.initializer.append(tensor)
    elif where == "constant":
        model.graph.node.insert(0, constant)
    else:
        out = onnx.helper.make_tensor_value_info("weights", onnx.TensorProto.FLOAT, [9, 5])
        branch = onnx.helper.make_graph([constant], "branch", [], [out])
        truth = onnx.helper.make_tensor("truth", onnx.TensorProto.BOOL, [], [True])
        model.graph.initializer.append(truth)
        inner = onnx.helper.make_node(
            "If", ["truth"], ["weights"], then_branch=branch, else_branch=branch
        )
        model.graph.node.insert(0, inner)
    refused(write(model))


def test_custom_operators_are_an_error(model, write):
    model.graph.node[2].domain = "custom.ops"
    model.opset_import.append(onnx.helper.make_opsetid("custom.ops", 1))
    refused(write(model))


def test_an_endless_loop_is_an_error(model, write):
    helper, types = onnx.helper, onnx.TensorProto
    names = ("step", types.INT64), ("go", types.BOOL)
    inputs = [helper.make_tensor_value_info(name, kind, []) for name, kind in names]
    outputs = [helper.make_tensor_value_info("on", types.BOOL, [])]
    body = helper.make_graph([helper.make_node("Identity", ["go"], ["on"])], "b", inputs, outputs)
    model.graph.initializer.append(helper.make_tensor("true", types.BOOL, [], [True]))
    model.graph.node.insert(0, helper.make_node("Loop", ["", "true"], [], body=body))
    refused(write(model), "Loop")


def test_functions_are_an_error(model, write):
    body = [onnx.helper.make_node("Relu", ["x"], ["y"])]
    opsets = [onnx.helper.make_opsetid("", 17)]
    model.functions.append(onnx.helper.make_function("f", "Mine", ["x"], ["y"], body, opsets))
    refused(write(model), "functions")


def test_a_model_of_weights_that_are_not_finite_is_an_error(model, write):
    weights = np.full((9, 5), np.inf, np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "weights"))
    with pytest.raises(DamagedFile, match="finite"):
        load_model(write(model))


def test_a_pipe_is_an_error(tmp_path: Path):
    os.mkfifo(tmp_path / "model.onnx")
    refused(tmp_path / "model.onnx")


def test_without_onnx_runtime_the_error_names_the_requirements(model, write, monkeypatch):
    path = write(model)
    for package in ("onnx", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)  # as if it were not installed
            with pytest.raises(UserError, match=r"pip install -r requirements-onnx\.txt"):
                load_model(path)


def test_a_model_runs_without_torch(model, write):
    code = f"""
import sys
from pathlib import Path
import numpy as np
from emotion.inference.backends import load_model
backend, _ = load_model(Path({str(write(model))!r}))
backend.classify(np.zeros((1, 9, 64, 64), np.uint8))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
