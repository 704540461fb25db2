"""checkpoint ──export──> one ONNX file with its recipe, checked against PyTorch, and a card.

python -m emotion.inference.export RUN_DIR     model.onnx and MODEL_CARD.md in the run's folder
python -m emotion.inference.export RUN_DIR --int8     and model.int8.onnx, where accuracy allows
"""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from emotion.errors import UserError
from emotion.files import unfinished
from emotion.inference.backends import Runtime, load_model, random_inputs
from emotion.inference.onnx_runtime import (
    OUTPUT,
    RECIPE_KEY,
    OnnxRuntime,
    import_onnx,
    with_digest,
)
from emotion.inference.quantization import quantize
from emotion.models.recipe import Recipe
from emotion.provenance import code_version, cpu_name, num_cores
from emotion.reports.model_card import CARD_FILE, ExportedFile, model_card
from emotion.stacks.manifest import StackRow
from emotion.training.finished_run import Run, spread

OPSET = 18  # what torch's exporter writes without converting; any ONNX Runtime since 1.14 reads it
TOLERANCE = 1e-4  # of probabilities, between PyTorch and ONNX Runtime
RANDOM_BATCHES = (1, 2, 5)  # numbers of random stacks that are compared at once
REAL_STACKS = 32  # of the validation stacks, compared in batches of
REAL_BATCH = 6
MAX_LOSS = 0.01  # of accuracy on val stacks; int8 that loses as much is not offered
RANGE_STACKS = 64  # of the train stacks, on which int8 measures the ranges of activations
FLOAT32_FILE, INT8_FILE = "model.onnx", "model.int8.onnx"


def export(run: Run, num_threads: int) -> ExportedFile:
    """Write a run's model as ONNX, if it gives there what it gives in PyTorch.

    Args:
        run: its checkpoint is taken.
        num_threads: cores that may be used.

    Returns:
        What was written: `model.onnx` in the run's folder.

    Raises:
        UserError: the model gives other probabilities, and nothing is written; or its checkpoint
            or stacks can't be read, or `onnx` is not installed.
    """
    import_onnx(FLOAT32_FILE)
    path = run.folder / FLOAT32_FILE
    path.unlink(missing_ok=True)  # an old one must not be taken for this one
    before, recipe = load_model(run.checkpoint, num_threads)
    rows = spread(run.rows("val"), REAL_STACKS)
    with unfinished(path) as temporary:
        write_model(to_onnx(before.module, recipe), temporary, describe(run, "float32"))
        after = OnnxRuntime(temporary, num_threads)
        largest = 0.0
        for kind, batches in (
            ("random", random_batches(recipe)),
            ("real", real_batches(run, rows)),
        ):
            difference = largest_difference(before, after, batches, min(1.0, recipe.temperature))
            if not difference <= TOLERANCE:  # NaN is not either
                raise UserError(
                    f"{run.checkpoint} is not exported: as ONNX its probabilities of {kind} stacks "
                    f"differ by up to {difference:.2g}, and {TOLERANCE:g} is allowed"
                )
            largest = max(largest, difference)
    return ExportedFile(
        path,
        "float32",
        f"probabilities differ from PyTorch's by at most {largest:.1g}, on {sum(RANDOM_BATCHES)} "
        f"random and {len(rows)} val stacks",
    )


def export_int8(run: Run, num_threads: int) -> ExportedFile:
    """Write the exported model once more, with 8-bit weights and activations, if it stays as good.

    Args:
        run: it has its `model.onnx`.
        num_threads: cores that may be used.

    Returns:
        What was written: `model.int8.onnx` in the run's folder.

    Raises:
        UserError: accuracy on the val stacks falls by `MAX_LOSS` or more, and nothing is written.
    """
    source, path = run.folder / FLOAT32_FILE, run.folder / INT8_FILE
    path.unlink(missing_ok=True)
    rows = run.rows("val")
    targets = np.array([run.recipe.labels.index(row.label) for row in rows])
    train = run.inputs(spread(run.rows("train"), RANGE_STACKS))
    with unfinished(path) as temporary:
        write_model(quantize(source, train, run.recipe.inputs), temporary, describe(run, "int8"))
        before, after = (
            np.concatenate(
                [runtime.classify(inputs).argmax(axis=1) for inputs in real_batches(run, rows)]
            )
            for runtime in (OnnxRuntime(source, num_threads), OnnxRuntime(temporary, num_threads))
        )
        right = [int((predicted == targets).sum()) for predicted in (before, after)]
        told = (
            f"right on {right[1]} of {len(rows)} val stacks, in float32 on {right[0]}; "
            f"{int((before != after).sum())} predictions changed"
        )
        if right[0] - right[1] >= MAX_LOSS * len(rows):
            raise UserError(
                f"{run.checkpoint} is not exported in int8, which would cost {MAX_LOSS:.0%} of "
                f"accuracy or more: {told}"
            )
    return ExportedFile(
        path, "int8", f"{told}; on this {cpu_name()}, and worse where 8-bit sums overflow (no VNNI)"
    )


def to_onnx(module: torch.nn.Module, recipe: Recipe) -> "onnx.ModelProto":  # noqa: F821
    """Translate an `EmotionModule`: what its `forward` takes and gives, for any number of stacks.

    By torch's newer exporter (`dynamo=True`). Both translate all three models, but the older one,
    which torch is giving up, has EfficientNetV2 find out the padding of its convolutions anew with
    every stack, and needs twice the operators.
    """
    num = torch.export.Dim("N")
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's parts have things to say to one another
            program = torch.onnx.export(
                module,
                (module.example(2, recipe.image_px),),
                input_names=[recipe.inputs],
                output_names=[OUTPUT],
                dynamic_shapes=({0: num},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        exporter.setLevel(level)
    return program.model_proto


def describe(run: Run, precision: str) -> dict[str, str]:
    """Say what a file must tell of itself."""
    packages = ("torch", "onnx", "onnxscript", "onnxruntime")
    return {
        RECIPE_KEY: run.recipe.to_json(),
        "precision": precision,
        "trained_by": run.metrics.get("commit") or "unknown commit",
        "exported_by": code_version().commit or "unknown commit",
        "exported_with": json.dumps({package: version(package) for package in packages}),
    }


def write_model(model: "onnx.ModelProto", path: Path, metadata: Mapping[str, str]) -> None:  # noqa: F821
    """Write a model with what it tells of itself, and nothing of the machine that made it.

    Args:
        model: changed in place.
        path: the file.
        metadata: text by key.
    """
    forget(model)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(with_digest(model.SerializeToString()))


def forget(message: "google.protobuf.message.Message") -> None:  # noqa: F821
    """Take out of a model, in place, what exporters note: paths and calls on their machine."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE:
            for each in value if field.label == field.LABEL_REPEATED else [value]:
                forget(each)


def random_batches(recipe: Recipe) -> Iterator[np.ndarray]:
    """Draw what `Runtime.classify` takes, for each number of stacks of `RANDOM_BATCHES`."""
    for seed, num in enumerate(RANDOM_BATCHES):
        yield random_inputs(recipe, num, seed)


def real_batches(run: Run, rows: Sequence[StackRow]) -> Iterator[np.ndarray]:
    """Load what `Runtime.classify` takes of a run's stacks, up to `REAL_BATCH` at once."""
    for first in range(0, len(rows), REAL_BATCH):
        yield run.inputs(rows[first : first + REAL_BATCH])


def largest_difference(
    one: Runtime, other: Runtime, batches: Iterable[np.ndarray], temperature: float
) -> float:
    """Compare what two runtimes make of stacks.

    Args:
        one: a runtime.
        other: another one, of the same model.
        batches: what `Runtime.classify` takes, each.
        temperature: the model's.

    Returns:
        The largest difference between two probabilities; NaN where one is no number.
    """
    differences = []
    for inputs in batches:
        first, second = (
            torch.from_numpy(runtime.classify(inputs)).double().div(temperature).softmax(dim=1)
            for runtime in (one, other)
        )
        differences.append((first - second).abs().max().item())
    return float(np.max(differences))


def main() -> None:
    """Export the run named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m emotion.inference.export",
        description="Write a run's model as one ONNX file, checked against PyTorch, and its card.",
    )
    parser.add_argument("run_dir", type=Path, help="folder of a finished run")
    parser.add_argument(
        "--int8", action="store_true", help="with 8 bits too, if that costs no point of accuracy"
    )
    arguments = parser.parse_args()
    refusal = None
    try:
        run = Run.read(arguments.run_dir)
        (run.folder / INT8_FILE).unlink(missing_ok=True)
        files = [export(run, num_cores())]
        if arguments.int8:
            try:
                files.append(export_int8(run, num_cores()))
            except UserError as error:
                refusal = error
        card = run.folder / CARD_FILE
        with unfinished(card) as temporary:
            temporary.write_text(model_card(run, files), encoding="utf-8")
    except UserError as error:
        sys.exit(f"error: {error}")
    for file in files:
        print(f"{file.path}: {file.precision}, {file.checked}")
    print(card)
    if refusal:
        sys.exit(f"error: {refusal}")


if __name__ == "__main__":
    main()
