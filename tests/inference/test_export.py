"""Exported models give the probabilities of PyTorch, or the export is an error."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from emotion import REPOSITORY
from emotion.inference.backends import OnnxBackend
from emotion.inference.export import largest_difference, main, to_onnx
from emotion.inference.onnx_file import write_onnx
from emotion.models.lightning_module import DiscriminantModule, EmotionModule
from emotion.models.recipe import Recipe
from emotion.reports.model_card import ExportedFile
from emotion.stacks.face_values import PARTS, values_shape
from emotion.training.finished_run import Run

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def stacks_of(recipe: Recipe, num: int) -> np.ndarray:
    """Draw stacks of 4 x 4 patches, so that they differ in more than noise."""
    patches = np.random.default_rng(num).integers(
        256, size=(num, recipe.num_images, 4, 4), dtype=np.uint8
    )
    return patches.repeat(recipe.image_px // 4, axis=2).repeat(recipe.image_px // 4, axis=3)


def settled(backbone: str, recipe: Recipe) -> EmotionModule:
    """Make a network of random weights whose logits differ between stacks, as trained ones do."""
    torch.manual_seed(0)
    module = EmotionModule(backbone, recipe.num_images, recipe.labels, channels_last=True)
    with torch.no_grad():
        for num in range(6, 14):  # batch norm learns how large its inputs are
            module.train()(torch.from_numpy(stacks_of(recipe, num)))
        logits = module.eval()(torch.from_numpy(stacks_of(recipe, 14)))
        last = module.network.head[-1]
        scale = logits.std(dim=0).mean()
        last.weight /= scale
        last.bias.copy_((last.bias - logits.mean(dim=0)) / scale)  # now of mean 0 and deviation 1
    return module


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Call the entry on a run, with --int8; returns the folder."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(finished_run, folder)
    for name in ("model.onnx", "model.int8.onnx", "MODEL_CARD.md"):
        (folder / name).write_text("of another run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["export.py", str(folder), "--int8"])
        main()
    return folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """An exported run's folder that a test may change."""
    shutil.copytree(exported, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("model", ["mobilenetv3", "effv2s", "effv2m"])
def test_every_model_gives_the_same_probabilities(model: str, compose, run_dir, tmp_path: Path):
    recipe = Recipe.read(run_dir / "recipe.json").model_copy(update={"interval": 15})
    module = settled(compose("train", [f"model={model}"]).model.backbone, recipe)
    write_onnx(to_onnx(module, recipe), tmp_path / "model.onnx", {"recipe": recipe.to_json()})
    runtime = OnnxBackend(tmp_path / "model.onnx")
    for num in (1, 2, 3, 7):
        stacks = stacks_of(recipe, num)
        with torch.no_grad():
            expected = module(torch.from_numpy(stacks)).softmax(dim=1).numpy()
        np.testing.assert_allclose(softmax(runtime.classify(stacks), axis=1), expected, atol=1e-4)
    assert expected.std(axis=0).max() > 0.1  # or else anything would have passed


def values_of(recipe: Recipe, num: int) -> np.ndarray:
    """Draw values of a face that moves; its last images repeat one another, as in a tail."""
    shape = values_shape(recipe.inputs)
    face = np.random.default_rng(99).normal(size=shape)
    moves = np.random.default_rng(num).normal(size=(num, recipe.num_images, *shape))
    values = face + 0.2 * moves
    values[:, -2:] = values[:, -3:-2]
    return values.astype(np.float32)


@pytest.mark.parametrize("inputs", PARTS)
def test_discriminants_are_exported(run_dir, tmp_path: Path, inputs: str):
    recipe = Recipe.read(run_dir / "recipe.json").model_copy(update={"inputs": inputs})
    module = DiscriminantModule(inputs, recipe.num_images, recipe.labels).eval()
    module.network.fit(values_of(recipe, 20), np.arange(20) % 5, 80, 0.6)
    write_onnx(to_onnx(module, recipe), tmp_path / "model.onnx", {"recipe": recipe.to_json()})
    runtime = OnnxBackend(tmp_path / "model.onnx")
    for num in (1, 2, 7):
        inputs = values_of(recipe, num)
        expected = module(torch.from_numpy(inputs)).softmax(dim=1).numpy()
        np.testing.assert_allclose(softmax(runtime.classify(inputs), axis=1), expected, atol=1e-4)
    assert expected.std(axis=0).max() > 0.05  # or else anything would have passed


def test_late_fusion_and_standardized_stacks_are_exported(run_dir, tmp_path: Path):
    recipe = Recipe.read(run_dir / "recipe.json")
    torch.manual_seed(0)
    module = EmotionModule(
        "mobilenetv3_small_050", recipe.num_images, recipe.labels, fusion="late", normalize="stack"
    ).eval()
    write_onnx(to_onnx(module, recipe), tmp_path / "model.onnx", {"recipe": recipe.to_json()})
    runtime = OnnxBackend(tmp_path / "model.onnx")
    for num in (1, 2, 7):
        inputs = stacks_of(recipe, num)
        with torch.no_grad():
            expected = module(torch.from_numpy(inputs)).softmax(dim=1).numpy()
        np.testing.assert_allclose(softmax(runtime.classify(inputs), axis=1), expected, atol=1e-4)


def test_an_export_gives_the_predictions_of_the_run(exported: Path):
    run = Run.read(exported)
    runtime = OnnxBackend(exported / "model.onnx")
    assert runtime.recipe == run.recipe
    for split in ("val", "test"):
        probabilities = softmax(runtime.classify(run.inputs(run.rows(split))), axis=1)
        written = run.predictions.of_split(split).probabilities
        np.testing.assert_allclose(probabilities, written, atol=1e-4)


def metadata_of(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_the_metadata_has_versions_and_no_paths(exported: Path):
    metadata = metadata_of(exported / "model.onnx")
    metrics = json.loads((exported / "metrics.json").read_text())
    recipe = Recipe.from_json(metadata["recipe"], "model.onnx")
    assert recipe == Recipe.read(exported / "recipe.json")
    assert metadata["precision"] == "float32"
    assert metadata["trained_by"] == (metrics["provenance"]["commit"] or "unknown commit")
    assert json.loads(metadata["exported_with"])["torch"] == torch.__version__.split("+")[0]
    data = (exported / "model.onnx").read_bytes()
    assert b"site-packages" not in data and str(REPOSITORY).encode() not in data


def test_the_int8_file_is_smaller_and_nearly_as_good(exported: Path):
    run = Run.read(exported)
    paths = [exported / name for name in ("model.onnx", "model.int8.onnx")]
    large, small = (path.stat().st_size for path in paths)
    assert small < 0.4 * large
    nodes = [node.op_type for node in onnx.load(paths[1]).graph.node]
    assert nodes.count("DequantizeLinear") > nodes.count("Conv") > 50
    inputs = run.inputs(run.rows("test"))
    before, after = (softmax(OnnxBackend(path).classify(inputs), axis=1) for path in paths)
    np.testing.assert_allclose(after, before, atol=0.05)
    assert metadata_of(paths[1])["precision"] == "int8"
    assert OnnxBackend(paths[1]).recipe == run.recipe


def altered(path: Path, place: int = 0, by: float = 0.01) -> "onnx.ModelProto":
    """Read an exported model, and change the logit of a class."""
    model = onnx.load(path)
    bias = next(t for t in model.graph.initializer if t.name.endswith("network.head.4.bias"))
    numbers = onnx.numpy_helper.to_array(bias).copy()
    numbers[place] += by
    bias.CopyFrom(onnx.numpy_helper.from_array(numbers, bias.name))
    return model


def test_an_export_that_differs_is_an_error_and_removed(copied: Path, monkeypatch):
    model = altered(copied / "model.onnx")
    monkeypatch.setattr("emotion.inference.export.to_onnx", lambda module, recipe: model)
    monkeypatch.setattr("sys.argv", ["export.py", str(copied)])
    with pytest.raises(SystemExit) as caught:
        main()
    message = str(caught.value.code)
    assert "best.ckpt" in message and "\n" not in message
    assert not list(copied.rglob("*.onnx"))  # nor the one that was there, of another checkpoint


def test_val_stacks_are_compared_too(copied: Path, monkeypatch):
    model = altered(copied / "model.onnx")
    monkeypatch.setattr("emotion.inference.export.to_onnx", lambda module, recipe: model)
    monkeypatch.setattr("emotion.inference.export.RANDOM_BATCHES", ())
    monkeypatch.setattr("sys.argv", ["export.py", str(copied)])
    with pytest.raises(SystemExit, match=r"best\.ckpt"):
        main()


def test_nan_is_a_difference():
    class Broken:
        def classify(self, stacks: np.ndarray) -> np.ndarray:
            return np.full((len(stacks), 5), np.nan, np.float32)

    difference = largest_difference(Broken(), Broken(), [np.zeros((1, 6, 8, 8), np.uint8)], 1.0)
    assert np.isnan(difference)


def test_int8_that_loses_accuracy_is_an_error(copied: Path, monkeypatch, capsys):
    run = Run.read(copied)
    rows = run.rows("val")
    logits = OnnxBackend(copied / "model.onnx").classify(run.inputs(rows))
    result = [run.recipe.labels[place] for place in logits.argmax(axis=1)]
    right = [row for row, label in zip(rows, result, strict=True) if label == row.label]
    assert right
    monkeypatch.setattr(Run, "rows", lambda run, split: right)

    def spoil(path: Path, inputs: np.ndarray, name: str) -> "onnx.ModelProto":
        return altered(path, place=(logits[0].argmax() + 1) % 5, by=1e6)

    checked = ExportedFile(copied / "model.onnx", "float32", "it was checked before")
    monkeypatch.setattr("emotion.inference.export.export", lambda run: checked)
    monkeypatch.setattr("emotion.inference.export.quantize", spoil)
    monkeypatch.setattr("sys.argv", ["export.py", str(copied), "--int8"])
    with pytest.raises(SystemExit) as caught:
        main()
    message = str(caught.value.code)
    assert f"0 of {len(right)} val stacks" in message and f"{len(right)} in float32" in message
    assert "\n" not in message
    assert not (copied / "model.int8.onnx").exists() and (copied / "model.onnx").exists()
    assert "model.int8.onnx" not in (copied / "MODEL_CARD.md").read_text()
    assert "it was checked before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run), "metrics.json"),
        (lambda run: (run / "best.ckpt").write_bytes(b""), "best.ckpt"),
    ],
)
def test_a_mistake_ends_in_one_line(copied: Path, monkeypatch, damage, message: str):
    damage(copied)
    monkeypatch.setattr("sys.argv", ["export.py", str(copied)])
    with pytest.raises(SystemExit) as caught:
        main()
    code = str(caught.value.code)
    assert code.startswith("error: ") and message in code and "\n" not in code
