"""Backends run a model: PyTorch a checkpoint, ONNX Runtime an exported file, or the starter.

A checkpoint has its `recipe.json` beside it, an ONNX file has its recipe inside. Each package is
imported only for its own kind of file, and no code in a file is executed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import numpy as np

from emotion.errors import DamagedFile, UserError, is_machine_fault
from emotion.evaluation.movements import describe_blendshapes
from emotion.evaluation.person_file import PERSON_FILE, person_from_bytes
from emotion.evaluation.starter import starter_model, starter_recipe
from emotion.files import read_whole
from emotion.inference.onnx_file import FEATURES, OUTPUT, read_onnx
from emotion.models.person_model import PersonModel
from emotion.models.recipe import RECIPE_FILE, Recipe
from emotion.stacks.face_values import values_shape
from emotion.training.record import FinishedRun, read_record

STARTER = Path("starter")  # a model that is no file: rules of thumb, nothing trained
PACKAGES = {".ckpt": ("PyTorch", "torch"), ".onnx": ("ONNX Runtime", "onnxruntime")}


class Backend(Protocol):
    """Runs a model.

    Attributes:
        recipe: how the model was trained.
        person_model: of the features of `describe`; None if it cannot learn a person.
    """

    recipe: Recipe
    person_model: PersonModel | None

    def classify(self, inputs: np.ndarray) -> np.ndarray:
        """Return the (N, C) float32 logits of stacks or values of faces, as in the recipe.

        Stacks are (N, T, image_px, image_px) uint8, 0 to 255; values (N, T, ...) float32 of
        `values_shape`.
        """

    def describe(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (N, C) logits, and the (N, D) float64 features from which they are computed."""


class StarterBackend:
    """The rules of thumb on blendshapes, see `starter_model`; implements `Backend`."""

    def __init__(self) -> None:
        """Build the model."""
        self.recipe, self.person_model = starter_recipe(), starter_model()
        self._unknown_person = self.person_model.unknown_person()

    def classify(self, inputs: np.ndarray) -> np.ndarray:
        """See `Backend.classify`."""
        return self.describe(inputs)[0]

    def describe(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Backend.describe`; images that repeat the one before do not count."""
        features = np.stack([describe_blendshapes(stack[is_new(stack)]) for stack in inputs])
        return self._unknown_person.logits(features).astype(np.float32), features


def is_new(stack: np.ndarray) -> np.ndarray:
    """Return (T,) bool, whether each image of (T, K) differs from the one before."""
    return np.append(True, (stack[1:] != stack[:-1]).any(axis=1))


class PyTorchBackend:
    """Runs a checkpoint, with its recipe beside it, on the CPU; implements `Backend`."""

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        """Load a checkpoint."""
        from emotion.models.lightning_module import MODULES
        from emotion.models.weights import load_weights, read_checkpoint

        self._num_threads = num_threads
        checkpoint = read_checkpoint(path)
        settings = checkpoint["hyper_parameters"]
        self.recipe = read_recipe(path)
        own = tuple(settings["labels"]), settings["num_images"]
        if own != (self.recipe.labels, self.recipe.num_images):
            raise DamagedFile(f"{path} and {RECIPE_FILE} beside it are not of the same run")
        self.module = MODULES[self.recipe.inputs](**settings).eval()
        load_weights(self.module, checkpoint["state_dict"], str(path))
        self.person_model = read_person(path)

    def classify(self, inputs: np.ndarray) -> np.ndarray:
        """See `Backend.classify`."""
        return self.describe(inputs)[0]

    def describe(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Backend.describe`."""
        import torch

        before = torch.get_num_threads()  # a setting of the process that others may have changed
        torch.set_num_threads(self._num_threads)
        try:
            with torch.inference_mode():
                features = self.module.features(torch.from_numpy(inputs))
                logits = self.module.network.head(features).float().numpy()
                return logits, features.double().numpy()
        finally:
            torch.set_num_threads(before)


class OnnxBackend:
    """Runs an exported model with ONNX Runtime; implements `Backend`."""

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        """Load a file that `emotion.inference.export` wrote; raises as `read_onnx`."""
        data, self.recipe, self.person_model = read_onnx(path)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised, not printed
        options.intra_op_num_threads = num_threads
        with one_line_errors(path):
            providers = ["CPUExecutionProvider"]
            self._session = onnxruntime.InferenceSession(data, options, providers=providers)
        name = self.recipe.inputs
        type_ = "tensor(uint8)" if name == "stacks" else "tensor(float)"
        expected = [
            (name, type_, list(input_shape(self.recipe, 1)[1:])),
            (OUTPUT, "tensor(float)", [len(self.recipe.labels)]),
        ]
        *nodes, features = *self._session.get_inputs(), *self._session.get_outputs()
        found = [(node.name, node.type, node.shape[1:]) for node in nodes]
        if found != expected or (features.name, features.type) != (FEATURES, "tensor(float)"):
            raise DamagedFile(f"{path} is damaged: its model does not match its recipe")

    def classify(self, inputs: np.ndarray) -> np.ndarray:
        """See `Backend.classify`."""
        return self.describe(inputs)[0]

    def describe(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Backend.describe`."""
        feed = {self.recipe.inputs: np.ascontiguousarray(inputs)}
        logits, features = self._session.run([OUTPUT, FEATURES], feed)
        return logits, features.astype(np.float64)


def load_model(path: Path, num_threads: int = 1) -> tuple[Backend, Recipe]:
    """Load a checkpoint or an ONNX file and run it once, or raise a UserError."""
    backend_name(path)  # raises if a package is missing
    if path == STARTER:
        backend = StarterBackend()
        return backend, backend.recipe
    record = read_record(path.parent) if path.suffix == ".ckpt" else None
    if isinstance(record, FinishedRun) and record.checkpoint == path.name:
        more = [PERSON_FILE] * (PERSON_FILE in record.files)
        record.check_files(path.parent, RECIPE_FILE, path.name, *more)
    with one_line_errors(path):
        backend = {".ckpt": PyTorchBackend, ".onnx": OnnxBackend}[path.suffix](path, num_threads)
        if not np.isfinite(backend.classify(random_inputs(backend.recipe, 1))).all():
            raise DamagedFile(f"{path} has weights that are not finite")
        if (person := backend.person_model) is not None:
            logits, features = backend.describe(random_inputs(backend.recipe, 1))
            sizes = len(person.means), len(person.center)
            if sizes != (logits.shape[1], features.shape[1]):
                raise DamagedFile(f"{path} is damaged: its person model is of another network")
    return backend, backend.recipe


def read_person(checkpoint: Path) -> PersonModel | None:
    """Read the person model beside a checkpoint; None if the run has none."""
    path = checkpoint.parent / PERSON_FILE
    return person_from_bytes(read_whole(path), str(path)) if path.is_file() else None


def input_shape(recipe: Recipe, num: int) -> tuple[int, ...]:
    """Return the shape of `num` stacks or values of faces, see `Backend.classify`."""
    if recipe.inputs != "stacks":
        return num, recipe.num_images, *values_shape(recipe.inputs)
    return num, recipe.num_images, recipe.image_px, recipe.image_px


def random_inputs(recipe: Recipe, num: int, seed: int = 0) -> np.ndarray:
    """Draw `num` random stacks or values of faces, as `Backend.classify` takes them."""
    generator, shape = np.random.default_rng(seed), input_shape(recipe, num)
    if recipe.inputs != "stacks":
        return generator.normal(size=shape).astype(np.float32)
    return generator.integers(256, size=shape, dtype=np.uint8)


def read_recipe(path: Path) -> Recipe:
    """Read the recipe of a checkpoint or an ONNX file; see `load_model`."""
    backend_name(path)  # raises if a package is missing
    if path == STARTER:
        return starter_recipe()
    if path.suffix == ".ckpt":
        return Recipe.read(path.parent / RECIPE_FILE)
    with one_line_errors(path):
        return read_onnx(path)[1]


def backend_name(path: Path) -> str:
    """Return the name and the version of the package that runs a model, or raise a UserError."""
    if path == STARTER:
        return "rules of thumb"
    title, package = PACKAGES[path.suffix]
    try:
        return f"{title} {version(package)}"
    except PackageNotFoundError:
        raise UserError(f"{path} needs {title}: pip install -r requirements-onnx.txt") from None


def find_model(path: Path) -> Path:
    """Find the model of a path: a checkpoint, an ONNX file, a folder, or `starter`.

    In the folder of a run it is the checkpoint that the run was evaluated with; other folders must
    have one model file. Raise a UserError if there is none.
    """
    path = path.expanduser()
    if path == STARTER:
        return path
    if not path.exists():
        raise UserError(f"model_path={path}: no such file or folder")
    if path.is_file() and path.suffix in PACKAGES:
        return path
    if not path.is_dir():
        raise UserError(f"model_path={path} must be the folder of a run, a .ckpt or an .onnx file")
    runs = sorted(recipe.parent.name for recipe in path.glob(f"*/{RECIPE_FILE}"))
    if runs:
        raise UserError(f"model_path={path} has {len(runs)} runs, give one: {', '.join(runs)}")
    record = read_record(path)
    if isinstance(record, FinishedRun) and (path / record.checkpoint).is_file():
        return path / record.checkpoint
    found = sorted(path.glob("*.ckpt")) or sorted(path.glob("*.onnx"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "no .ckpt and no .onnx file"
        raise UserError(f"model_path={path} has {names}: give one model file")
    return found[0]


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Turn any error of a damaged or foreign model file into a UserError."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{path}: {error}: pip install -r requirements-onnx.txt") from None
    except Exception as error:  # torch, timm and ONNX Runtime each have exceptions of their own
        if is_machine_fault(error):
            raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        raise DamagedFile(f"{path} is damaged, or no model of ours: {reason}") from error
