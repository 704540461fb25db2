"""Measure PyTorch against ONNX Runtime: python -m benchmarks.runtimes [--threads 2].

One stack at a time, as in prediction, through all three models in one run: PyTorch and ONNX Runtime
in float32 and in int8, in turn, so that whatever else the machine does slows all of them. Ratios
are of medians; absolute times depend on the machine. Weights are random, which makes no difference
to the time.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from emotion.cli import CONF_DIR
from emotion.inference.backends import Backend, OnnxBackend, PyTorchBackend, random_inputs
from emotion.inference.export import to_onnx
from emotion.inference.onnx_file import RECIPE_KEY, write_onnx
from emotion.inference.quantization import quantize
from emotion.models.lightning_module import EmotionModule
from emotion.models.recipe import RECIPE_FILE, Recipe, package_versions
from emotion.models.titles import model_title
from emotion.stacks.cache import Cache

MODELS = ("mobilenetv3", "effv2s", "effv2m")
PAUSE_S = 0.05  # before each call, until the threads of the runtime before have stopped waiting


def untrained(model: str, image_px: int, folder: Path) -> Path:
    """Write what `train.py` would leave of a model with random weights.

    Args:
        model: of `conf/model`.
        image_px: height and width of its images.
        folder: a checkpoint and a recipe go there.

    Returns:
        The checkpoint.
    """
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("train", [f"model={model}", "data=demo"])
    recipe = Recipe(
        title=model_title(cfg.model.backbone),
        data="nothing",
        labels=tuple(cfg.data.labels),
        settings=Cache.from_config(cfg).settings,
        interval=cfg.interval.frames,
        image_px=image_px,
        versions=package_versions(),
    )
    recipe.write(folder / RECIPE_FILE)
    torch.manual_seed(0)
    module = EmotionModule(
        cfg.model.backbone,
        recipe.num_images,
        recipe.labels,
        channels_last=cfg.model.channels_last,
    )
    checkpoint = {"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}
    path = folder / "best.ckpt"
    torch.save(checkpoint, path)
    return path


def runtimes(model: str, image_px: int, threads: int, folder: Path) -> dict[str, Backend]:
    """Load a model of random weights into every runtime; name -> runtime."""
    before = PyTorchBackend(untrained(model, image_px, folder), threads)
    recipe = Recipe.read(folder / RECIPE_FILE)
    metadata = {RECIPE_KEY: recipe.to_json()}
    float32, int8 = folder / "model.onnx", folder / "model.int8.onnx"
    write_onnx(to_onnx(before.module, recipe), float32, metadata)
    write_onnx(quantize(float32, random_inputs(recipe, 4)), int8, metadata)
    return {
        "PyTorch": before,
        "ONNX Runtime float32": OnnxBackend(float32, threads),
        "ONNX Runtime int8": OnnxBackend(int8, threads),
    }


def medians_ms(of: dict[str, Backend], inputs: np.ndarray, repeats: int) -> dict[str, float]:
    """Classify stacks with one runtime after the other, again and again; name -> median in ms."""
    times_s: dict[str, list[float]] = {name: [] for name in of}
    for repeat in range(repeats + 2):  # two to warm up
        for name, runtime in of.items():
            time.sleep(PAUSE_S)
            start_s = time.perf_counter()
            runtime.classify(inputs)
            if repeat >= 2:
                times_s[name].append(time.perf_counter() - start_s)
    return {name: 1000 * float(np.median(times)) for name, times in times_s.items()}


def main() -> None:
    """Time all models and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtimes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--image-px", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    titles = ["model", "runtime", "ms a stack", "times as fast as PyTorch", "MB"]
    table = Table(*titles, title=f"one stack of {arguments.image_px} px, {arguments.threads} cores")
    for column in table.columns[2:]:
        column.justify = "right"
    for model in MODELS:
        with TemporaryDirectory() as name:
            folder = Path(name)
            of = runtimes(model, arguments.image_px, arguments.threads, folder)
            recipe = Recipe.read(folder / RECIPE_FILE)
            medians = medians_ms(of, random_inputs(recipe, 1), arguments.repeats)
            files = ("best.ckpt", "model.onnx", "model.int8.onnx")
            sizes = [(folder / file).stat().st_size / 1e6 for file in files]
        first = next(iter(medians.values()))
        for (runtime, median), size in zip(medians.items(), sizes, strict=True):
            ratio = f"{first / median:.2f}"
            table.add_row(recipe.title, runtime, f"{median:.1f}", ratio, f"{size:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
