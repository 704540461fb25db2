"""A trained model on disk ──load──> a runtime: what turns stacks into logits.

Two kinds of file: a checkpoint of `train.py` with its `recipe.json` beside it, which PyTorch runs,
and an ONNX file with its recipe inside, which ONNX Runtime runs. Neither kind is imported before a
file asks for it, and no code that a file may hold is run.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import numpy as np

from emotion.errors import UserError
from emotion.models.recipe import RECIPE_FILE, Recipe
from emotion.stacks.landmarks import NUM_POINTS

RUNTIMES = {".ckpt": ("PyTorch", "torch"), ".onnx": ("ONNX Runtime", "onnxruntime")}


class Backend(Protocol):
    """A network that is ready to run.

    Attributes:
        name: what runs it, with its version.
    """

    name: str

    def classify(self, stacks: np.ndarray, landmarks: np.ndarray | None = None) -> np.ndarray:
        """Classify stacks.

        Args:
            stacks: (N, T, image_px, image_px) uint8, 0 to 255.
            landmarks: (N, T, 468, 3) float32, of their images, for a model that takes them.

        Returns:
            (N, C) float32 logits.
        """


def load_model(path: Path, num_threads: int = 1) -> tuple[Backend, Recipe]:
    """Load a model and try it.

    Args:
        path: as `find_model` gives it.
        num_threads: cores that the network may use.

    Raises:
        UserError: it is damaged, foreign, or its runtime is not installed.
    """
    recipe = read_recipe(path)
    from emotion.inference.onnx_runtime import OnnxBackend

    with foreign(path):
        runtime = {".ckpt": PyTorchBackend, ".onnx": OnnxBackend}[path.suffix](path, num_threads)
        num_labels = runtime.classify(*random_inputs(recipe, 1)).shape[1]
    if num_labels != len(recipe.labels):
        raise UserError(
            f"{path} tells {num_labels} classes apart, its recipe names {len(recipe.labels)}: "
            "they are not of the same run"
        )
    return runtime, recipe


def random_inputs(recipe: Recipe, num: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Draw `num` stacks at random, and landmarks if the model takes them, as `classify` does."""
    generator = np.random.default_rng(seed)
    shape = (num, recipe.num_images, recipe.image_px, recipe.image_px)
    stacks = generator.integers(256, size=shape, dtype=np.uint8)
    if not recipe.landmarks:
        return (stacks,)
    shape = (num, recipe.num_images, NUM_POINTS, 3)
    return stacks, generator.normal(size=shape).astype(np.float32)


def read_recipe(path: Path) -> Recipe:
    """Read a model's recipe; see `load_model`."""
    if path.suffix == ".ckpt":
        return Recipe.read(path.parent / RECIPE_FILE)
    from emotion.inference.onnx_runtime import read_onnx

    with foreign(path):
        return read_onnx(path)[1]


def backend_name(path: Path) -> str:
    """Name what runs a model, with its version; raises UserError where it is not installed."""
    title, package = RUNTIMES[path.suffix]
    try:
        return f"{title} {version(package)}"
    except PackageNotFoundError:
        raise UserError(
            f"{path} needs {title}: pip install -r requirements-onnx.txt, or name a checkpoint"
        ) from None


def find_model(path: Path) -> Path:
    """Find a model's file.

    Args:
        path: a checkpoint, an ONNX file, or the folder of a run.

    Raises:
        UserError: there is none, or it is not clear which.
    """
    path = path.expanduser()
    if path.is_dir():
        path = model_in(path)
    elif not path.exists():
        raise UserError(f"model_path={path}: no such file or folder")
    if path.suffix not in RUNTIMES:
        raise UserError(
            f"model_path={path} is neither a checkpoint (.ckpt) nor an ONNX file (.onnx), "
            "nor the folder of a run"
        )
    return path


def model_in(run_dir: Path) -> Path:
    """Find the checkpoint that a run was judged by, or else the one ONNX file of a folder.

    Raises:
        UserError: there is none, or it is not clear which.
    """
    runs = sorted(path.parent.name for path in run_dir.glob(f"*/{RECIPE_FILE}"))
    if runs:
        raise UserError(
            f"model_path={run_dir} holds {len(runs)} runs: name one of them: {', '.join(runs)}"
        )
    try:
        name = json.loads((run_dir / "metrics.json").read_text())["checkpoint"]
        found = [run_dir / name]
    except (OSError, ValueError, KeyError, TypeError):  # a folder that somebody has put together
        found = sorted(run_dir.glob("*.ckpt"))
    found = [path for path in found if path.is_file()] or sorted(run_dir.glob("*.onnx"))
    if len(found) != 1:
        there = ", ".join(path.name for path in found) or "no .ckpt and no .onnx"
        raise UserError(
            f"model_path={run_dir}: there is {there} in that folder; name the run or the file"
        )
    return found[0]


class PyTorchBackend:
    """Runs the network of a checkpoint; see `Backend`.

    Attributes:
        module: the `EmotionModule`, on the CPU and set to evaluate.
    """

    def __init__(self, path: Path, num_threads: int) -> None:
        """Load a checkpoint, whose recipe lies beside it, and none of the code that it may hold."""
        import torch

        from emotion.models.lightning_module import EmotionModule

        self.name = backend_name(path)
        self._num_threads = num_threads
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        told = checkpoint["hyper_parameters"]
        recipe = read_recipe(path)
        if (tuple(told["labels"]), told["num_images"]) != (recipe.labels, recipe.num_images):
            raise UserError(
                f"{path} tells {', '.join(told['labels'])} from {told['num_images']} images, "
                f"{RECIPE_FILE} says {', '.join(recipe.labels)} from {recipe.num_images}: "
                "they are not of the same run"
            )
        if told.get("landmarks", False) != recipe.landmarks:
            raise UserError(f"{path} and {RECIPE_FILE} do not agree whether it takes landmarks")
        self.module = EmotionModule(**told).eval()
        self.module.load_state_dict(checkpoint["state_dict"])

    def classify(self, stacks: np.ndarray, landmarks: np.ndarray | None = None) -> np.ndarray:
        """See `Backend.classify`."""
        import torch

        before = torch.get_num_threads()  # one number for the process, which others may have set
        torch.set_num_threads(self._num_threads)
        try:
            with torch.inference_mode():
                inputs = (stacks,) if landmarks is None else (stacks, landmarks)
                return self.module(*map(torch.from_numpy, inputs)).float().numpy()
        finally:
            torch.set_num_threads(before)


@contextmanager
def foreign(path: Path) -> Iterator[None]:
    """Tell in a line that a model's file is not one of ours, whatever it is that goes wrong."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # torch, timm and ONNX Runtime each have exceptions of their own
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        if isinstance(error, KeyError):
            reason = f"it has no {error}"
        raise UserError(f"{path} is damaged, or no model of ours: {reason[:200]}") from error
