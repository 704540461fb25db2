"""A trained model on disk ──load──> a runtime: what turns stacks into logits.

Two kinds of file: a checkpoint of `train.py` with its `recipe.json` beside it, which PyTorch runs,
and an ONNX file with its recipe inside, which ONNX Runtime runs. Neither kind is imported before a
file asks for it, and no code that a file may hold is run.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from emotion.errors import UserError
from emotion.recipe import RECIPE_FILE, Recipe

SUFFIXES = {".ckpt": "PyTorch", ".onnx": "ONNX Runtime"}


class Runtime(Protocol):
    """A network that is ready to run.

    Attributes:
        name: what runs it, with its version.
    """

    name: str

    def classify(self, stacks: np.ndarray) -> np.ndarray:
        """Classify stacks.

        Args:
            stacks: (N, T, image_px, image_px) uint8, 0 to 255.

        Returns:
            (N, C) float32 logits.
        """


@dataclass(frozen=True)
class ModelFile:
    """A model's file, found but not loaded.

    Attributes:
        path: of the checkpoint or the ONNX file.
        runtime: what will run it.
    """

    path: Path
    runtime: str

    def load(self, num_threads: int | None = None) -> tuple[Runtime, Recipe]:
        """Load it.

        Args:
            num_threads: cores that the network may use; None for all.

        Raises:
            UserError: it is damaged, foreign, or its runtime is not installed.
        """
        load = {".ckpt": load_checkpoint, ".onnx": load_onnx}[self.path.suffix]
        runtime, recipe = load(self.path, num_threads)
        probe = np.zeros((1, recipe.num_images, recipe.image_px, recipe.image_px), np.uint8)
        with foreign(self.path):
            shape = runtime.classify(probe).shape
        if shape != (1, len(recipe.labels)):
            raise UserError(
                f"{self.path} gives logits of shape {shape}, its recipe has {len(recipe.labels)} "
                "labels: they are not of the same model"
            )
        return runtime, recipe


def find_model(path: Path) -> ModelFile:
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
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"model_path={path} is neither a checkpoint (.ckpt) nor an ONNX file (.onnx), "
            "nor the folder of a run"
        )
    return ModelFile(path, SUFFIXES[path.suffix])


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


class TorchRuntime:
    """Runs the network of a checkpoint; see `Runtime`."""

    def __init__(self, module: "torch.nn.Module") -> None:  # noqa: F821 imported in load_checkpoint
        """Take a trained `EmotionModule`."""
        import torch

        self.name = f"PyTorch {torch.__version__}"
        self.module = module.eval()

    def classify(self, stacks: np.ndarray) -> np.ndarray:
        """See `Runtime.classify`."""
        import torch

        with torch.inference_mode():
            return self.module(torch.from_numpy(stacks)).float().numpy()


def load_checkpoint(path: Path, num_threads: int | None = None) -> tuple[Runtime, Recipe]:
    """Load a checkpoint and the recipe beside it; see `ModelFile.load`."""
    recipe = Recipe.read(path.parent / RECIPE_FILE)
    import torch

    from emotion.module import EmotionModule

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    with foreign(path):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        hyperparameters = checkpoint["hyper_parameters"]
        module = EmotionModule(**hyperparameters)
        module.load_state_dict(checkpoint["state_dict"])
    mine = tuple(hyperparameters["labels"]), hyperparameters["num_images"]
    if mine != (recipe.labels, recipe.num_images):
        raise UserError(
            f"{path} tells {', '.join(mine[0])} from {mine[1]} images, {RECIPE_FILE} beside it says "
            f"{', '.join(recipe.labels)} from {recipe.num_images}: they are not of the same run"
        )
    return TorchRuntime(module), recipe


def load_onnx(path: Path, num_threads: int) -> tuple[Runtime, Recipe]:
    """Load an ONNX file; see `ModelFile.load`."""
    from emotion.onnx_runtime import OnnxRuntime

    runtime = OnnxRuntime(path, num_threads)
    return runtime, runtime.recipe


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
