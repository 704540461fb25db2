"""Export a run's model to one ONNX file with its recipe, checked against PyTorch, and a model card.

python -m emotion.inference.export RUN_DIR          model.onnx and MODEL_CARD.md in the run's folder
python -m emotion.inference.export RUN_DIR --int8   and model.int8.onnx, if accuracy allows it
"""

from emotion.stopping import stop_on_signals

if __name__ == "__main__":  # before the other imports, which take a second
    stop_on_signals("stopped; the same command exports the model again")

import argparse
import base64
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import numpy as np

from emotion.cli import exit_on_error
from emotion.data.split import spread
from emotion.errors import UserError
from emotion.evaluation.person_file import person_to_bytes
from emotion.files import unfinished
from emotion.inference.backends import Backend, OnnxBackend, backend_name, load_model, random_inputs
from emotion.inference.onnx_file import FEATURES, OUTPUT, PERSON_KEY, RECIPE_KEY, write_onnx
from emotion.inference.quantization import quantize
from emotion.models.recipe import Recipe
from emotion.models.temperature import calibrate
from emotion.provenance import code_version, cpu_name
from emotion.reports.model_card import CARD_FILE, ExportedFile, model_card
from emotion.stacks.manifest import StackRow
from emotion.training.finished_run import Run

if TYPE_CHECKING:
    import onnx
    import torch

OPSET = 18  # written by torch's exporter without conversion; ONNX Runtime reads it since 1.14
TOLERANCE = 1e-4  # largest allowed difference of probabilities from PyTorch's
RANDOM_BATCHES = (1, 2, 5)  # sizes of the compared batches of random stacks
REAL_STACKS = 32  # number of compared validation stacks
REAL_BATCH = 6  # their batch size
MAX_LOSS = 0.01  # an int8 model that loses as much validation accuracy is refused
RANGE_STACKS = 64  # train stacks on which int8 measures the ranges of activations
CORES = joblib.cpu_count()
FLOAT32_FILE, INT8_FILE = "model.onnx", "model.int8.onnx"


def export(run: Run) -> ExportedFile:
    """Write `model.onnx`, or raise a UserError if its probabilities are not those of PyTorch."""
    path = run.folder / FLOAT32_FILE
    backend_name(path)
    path.unlink(missing_ok=True)  # an old file must not pass for this one
    before, recipe = load_model(run.checkpoint, CORES)
    rows = spread(run.rows("val"), REAL_STACKS)
    random = (random_inputs(recipe, num, seed) for seed, num in enumerate(RANDOM_BATCHES))
    with unfinished(path) as temporary:
        metadata = describe(run, "float32")
        if before.person_model is not None:  # int8 changes the features too much
            content = person_to_bytes(before.person_model)
            metadata[PERSON_KEY] = base64.b64encode(content).decode()
        write_onnx(to_onnx(before.module, recipe), temporary, metadata)
        after = OnnxBackend(temporary, CORES)
        batches = chain(random, batches_of(run, rows))
        difference = largest_difference(before, after, batches, min(1.0, recipe.temperature))
        stacks = f"on {sum(RANDOM_BATCHES)} random and {len(rows)} val stacks"
        if not difference <= TOLERANCE:  # also true for NaN
            raise UserError(
                f"{run.checkpoint} is not exported: its probabilities differ from PyTorch's by "
                f"{difference:.2g}, more than {TOLERANCE:g}, {stacks}"
            )
    result = f"probabilities differ from PyTorch's by at most {difference:.1g}"
    return ExportedFile(path, "float32", f"{result}, {stacks}")


def export_int8(run: Run) -> ExportedFile:
    """Write `model.int8.onnx`, quantized from `model.onnx`, or raise a UserError if it is worse."""
    source, path = run.folder / FLOAT32_FILE, run.folder / INT8_FILE
    path.unlink(missing_ok=True)
    rows = run.rows("val")
    targets = np.array([run.recipe.labels.index(row.label) for row in rows])
    train = run.inputs(spread(run.rows("train"), RANGE_STACKS))
    with unfinished(path) as temporary:
        model = quantize(source, train, run.recipe.inputs)
        write_onnx(model, temporary, describe(run, "int8"))
        backends = [OnnxBackend(file, CORES) for file in (source, temporary)]
        before, after = (
            np.concatenate([backend.classify(each).argmax(1) for each in batches_of(run, rows)])
            for backend in backends
        )
        correct = [int((predicted == targets).sum()) for predicted in (before, after)]
        result = (
            f"{correct[1]} of {len(rows)} val stacks correct, {correct[0]} in float32; "
            f"{int((before != after).sum())} predictions changed"
        )
        if correct[0] - correct[1] >= MAX_LOSS * len(rows):
            raise UserError(
                f"{run.checkpoint} is not exported as int8, which would lose {MAX_LOSS:.0%} of "
                f"validation accuracy or more: {result}"
            )
    note = f"on {cpu_name()}; less accurate on CPUs without VNNI, where 8-bit sums overflow"
    return ExportedFile(path, "int8", f"{result}; {note}")


def to_onnx(module: "torch.nn.Module", recipe: Recipe) -> "onnx.ModelProto":
    """Convert a Lightning module for batches of any size.

    With torch's newer exporter (`dynamo=True`): the older one computes the padding of
    EfficientNetV2's convolutions again for every stack, and needs twice the operators.
    """
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # between torch and its own parts
        program = torch.onnx.export(
            with_features(module),
            (module.example(2, recipe.image_px),),
            input_names=[recipe.inputs],
            output_names=[OUTPUT, FEATURES],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    return program.model_proto


def with_features(module: "torch.nn.Module") -> "torch.nn.Module":
    """Wrap a Lightning module so that it returns logits and features."""
    import torch

    class WithFeatures(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.module.features(inputs)
            return self.module.network.head(features), features

    return WithFeatures().eval()


def describe(run: Run, precision: str) -> dict[str, str]:
    """Return the metadata of an exported file."""
    packages = ("torch", "onnx", "onnxscript", "onnxruntime")
    return {
        RECIPE_KEY: run.recipe.to_json(),
        "precision": precision,
        "trained_by": run.record.provenance.commit or "unknown commit",
        "exported_by": code_version()[0] or "unknown commit",
        "exported_with": json.dumps({package: version(package) for package in packages}),
    }


def batches_of(run: Run, rows: Sequence[StackRow]) -> Iterator[np.ndarray]:
    """Yield batches of a run's inputs."""
    for first in range(0, len(rows), REAL_BATCH):
        yield run.inputs(rows[first : first + REAL_BATCH])


def largest_difference(
    one: Backend, other: Backend, batches: Iterable[np.ndarray], temperature: float
) -> float:
    """Return the largest difference between two backends' probabilities; NaN if one is NaN."""
    differences = []
    for inputs in batches:
        first, second = (calibrate(each.classify(inputs), temperature) for each in (one, other))
        differences.append(np.abs(first - second).max())
    return float(np.max(differences))


def main() -> None:
    """Export the run named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m emotion.inference.export",
        description="Export a run's model to one ONNX file, checked against PyTorch, and its card.",
    )
    parser.add_argument("run_dir", type=Path, help="folder of a finished run")
    parser.add_argument(
        "--int8", action="store_true", help="write an int8 model too, if it is as accurate"
    )
    arguments = parser.parse_args()
    files: list[ExportedFile] = []
    with exit_on_error():
        run = Run.read(arguments.run_dir)
        (run.folder / INT8_FILE).unlink(missing_ok=True)
        for write_model in (export, export_int8)[: 1 + arguments.int8]:
            files.append(write_model(run))
            with unfinished(run.folder / CARD_FILE) as temporary:
                temporary.write_text(model_card(run, files), encoding="utf-8")
            print(f"{files[-1].path}: {files[-1].precision}, {files[-1].checked}")
        print(run.folder / CARD_FILE)


if __name__ == "__main__":
    main()
