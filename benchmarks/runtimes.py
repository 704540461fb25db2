"""Compare PyTorch with ONNX Runtime: python -m benchmarks.runtimes [--threads 2].

One stack at a time, as in prediction, through each model of random weights in PyTorch and in ONNX
Runtime, float32 and int8, in turn. Compare ratios; absolute times depend on the machine.
"""

import argparse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.predict import write_run
from benchmarks.timing import medians_s
from emotion.inference.backends import Backend, OnnxBackend, PyTorchBackend, random_inputs
from emotion.inference.export import to_onnx
from emotion.inference.onnx_file import RECIPE_KEY, write_onnx
from emotion.inference.quantization import quantize
from emotion.models.recipe import RECIPE_FILE, Recipe

MODELS = ("mobilenetv3", "effv2s", "effv2m")
PAUSE_S = 0.05  # before each call, until the threads of the runtime before have stopped waiting
FILES = {"PyTorch": "best.ckpt", "ONNX Runtime float32": "model.onnx",
         "ONNX Runtime int8": "model.int8.onnx"}  # fmt: skip


def runtimes(recipe: Recipe, threads: int, folder: Path) -> dict[str, Backend]:
    """Export the model in a folder and load it into each runtime; return name -> runtime."""
    plain, float32, int8 = (folder / file for file in FILES.values())
    metadata = {RECIPE_KEY: recipe.to_json()}
    pytorch = PyTorchBackend(plain, threads)
    write_onnx(to_onnx(pytorch.module, recipe), float32, metadata)
    write_onnx(quantize(float32, random_inputs(recipe, 4)), int8, metadata)
    loaded = (pytorch, OnnxBackend(float32, threads), OnnxBackend(int8, threads))
    return dict(zip(FILES, loaded, strict=True))


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
            folder = Path(name, model)
            write_run(model, folder, [f"loader.image_px={arguments.image_px}"])
            recipe = Recipe.read(folder / RECIPE_FILE)
            loaded = runtimes(recipe, arguments.threads, folder)
            inputs = random_inputs(recipe, 1)
            calls = {name: partial(each.classify, inputs) for name, each in loaded.items()}
            medians = medians_s(calls, arguments.repeats, PAUSE_S)
            for runtime, median in medians.items():
                ratio = f"{medians['PyTorch'] / median:.2f}"
                size = f"{(folder / FILES[runtime]).stat().st_size / 1e6:.1f}"
                table.add_row(recipe.title, runtime, f"{1000 * median:.1f}", ratio, size)
    Console().print(table)


if __name__ == "__main__":
    main()
