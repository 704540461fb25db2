"""stacks ──classify──> logits, by ONNX Runtime: a model in one file that tells how to use it.

The file holds the network, the `Recipe` of its run and a digest of all of it. Nothing else is
read, and nothing in it is run but the operators that ONNX Runtime itself brings.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emotion.errors import UserError
from emotion.models.recipe import Recipe
from emotion.stacks.landmarks import NUM_POINTS

if TYPE_CHECKING:
    import onnx
    import onnxruntime
    from google.protobuf.message import Message

INPUT, LANDMARKS, OUTPUT = "stacks", "landmarks", "logits"
RECIPE_KEY = "recipe"
# The last entry of the file's metadata, in the bytes that protobuf makes of it: field 14 of a
# model, with a key, field 1, and a value, field 2, of 64 hexadecimal digits. It is written behind
# all the others, so that it can vouch for every byte before it.
DIGEST_ENTRY = b"\x72\x4a\x0a\x06sha256\x12\x40"


class OnnxBackend:
    """Runs an exported model; see `emotion.inference.backends.Backend`.

    Attributes:
        name: what runs it, with its version.
        recipe: how clips become what it takes, and how its logits are to be read.
        metadata: all that the file says of itself, text by key.
    """

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        """Load a model.

        Args:
            path: what `python -m emotion.inference.export` wrote.
            num_threads: cores that it may use.

        Raises:
            UserError: ONNX Runtime is not installed; or the file is missing, damaged, not of this
                project, or refers to data outside itself.
        """
        onnxruntime = import_onnx(path.name)
        data, self.recipe, self.metadata = read_onnx(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # it would print what we raise
        options.intra_op_num_threads = num_threads
        try:
            session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of many kinds that have nothing else in common
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path} can't be run by ONNX Runtime: {reason}") from None
        check_shapes(session, self.recipe, path)
        self.name = f"ONNX Runtime {onnxruntime.__version__}"
        self._session = session

    def classify(self, stacks: np.ndarray, landmarks: np.ndarray | None = None) -> np.ndarray:
        """See `Backend.classify`."""
        inputs = {INPUT: np.ascontiguousarray(stacks)}
        if landmarks is not None:
            inputs[LANDMARKS] = np.ascontiguousarray(landmarks)
        (logits,) = self._session.run([OUTPUT], inputs)
        return logits


def import_onnx(needed_for: str) -> "onnxruntime":
    """Import ONNX Runtime, and see that `onnx` is there, which not everybody has.

    Raises:
        UserError: one of them is not installed.
    """
    try:
        import onnx  # noqa: F401 reads the file before ONNX Runtime does
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"{needed_for} needs ONNX Runtime ({error}): pip install -r requirements-onnx.txt"
        ) from None
    return onnxruntime


def read_onnx(path: Path) -> tuple[bytes, Recipe, dict[str, str]]:
    """Read a model, and see that it is one of ours and whole; run nothing.

    Args:
        path: what `python -m emotion.inference.export` wrote.

    Returns:
        The file's content, the recipe in it, and all that it tells of itself, text by key.

    Raises:
        UserError: see `OnnxBackend`.
    """
    import_onnx(path.name)
    import onnx
    from google.protobuf.message import DecodeError

    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        model.Clear()
    if not model.HasField("graph"):
        raise UserError(f"{path} is no ONNX model, or damaged")
    # ONNX Runtime would follow such a reference anywhere, also to absolute paths.
    if any(
        tensor.external_data or tensor.data_location != onnx.TensorProto.DEFAULT
        for tensor in tensors_of(model)
    ):
        raise UserError(f"{path} refers to data outside itself, and ours have all within")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if RECIPE_KEY not in metadata:
        raise UserError(
            f"{path} is an ONNX model, but none of ours, for it does not say how clips become "
            "what it takes: export one with python -m emotion.inference.export RUN_DIR"
        )
    if not is_whole(data):
        raise UserError(f"{path} is damaged, or was changed after it was exported")
    return data, Recipe.from_json(metadata[RECIPE_KEY], f"the recipe in {path}"), metadata


def tensors_of(message: "Message") -> Iterator["onnx.TensorProto"]:
    """Find all tensors in a model: weights, constants in nodes, and those of inner graphs."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for each in value if field.label == field.LABEL_REPEATED else [value]:
                yield from tensors_of(each)


def with_digest(data: bytes) -> bytes:
    """Add the digest of a serialized model to its metadata."""
    return data + DIGEST_ENTRY + hashlib.sha256(data).hexdigest().encode()


def is_whole(data: bytes) -> bool:
    """Tell whether a file is, to the last bit, what `with_digest` gave."""
    return with_digest(data[: -len(DIGEST_ENTRY) - 64]) == data


def check_shapes(session: "onnxruntime.InferenceSession", recipe: Recipe, path: Path) -> None:
    """Refuse a model that takes or gives something else than its recipe says.

    Raises:
        UserError: it does.
    """
    inputs = [(node.name, node.type, node.shape[1:]) for node in session.get_inputs()]
    outputs = [(node.name, node.type, node.shape[1:]) for node in session.get_outputs()]
    images = [recipe.num_images, recipe.image_px, recipe.image_px]
    expected = [(INPUT, "tensor(uint8)", images)]
    if recipe.landmarks:
        expected.append((LANDMARKS, "tensor(float)", [recipe.num_images, NUM_POINTS, 3]))
    if inputs != expected or outputs != [(OUTPUT, "tensor(float)", [len(recipe.labels)])]:
        raise UserError(f"{path} is damaged: the model in it is not the one of its recipe")
