"""ONNX files of this project: the network, its `Recipe`, and a digest of both in one file.

Reading runs no code of a file, and opens no other file.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from emotion.errors import DamagedFile
from emotion.evaluation.person_file import person_from_bytes
from emotion.files import read_whole
from emotion.models.person_model import PersonModel
from emotion.models.recipe import Recipe

if TYPE_CHECKING:
    import onnx
    from google.protobuf.message import Message

RECIPE_KEY = "recipe"
PERSON_KEY = "person"  # metadata of the person model, in base64
OUTPUT, FEATURES = "logits", "features"  # the outputs; the input is named as the recipe's `inputs`
# The last entry of the file's metadata as protobuf bytes: field 14 of a model, with a key (field 1)
# and a value (field 2) of 64 hexadecimal digits. It comes after all other entries, so that it
# covers every byte before it.
DIGEST_ENTRY = b"\x72\x4a\x0a\x06sha256\x12\x40"
MAX_BYTES = (1 << 31) - 1  # of a protobuf message
MAX_NODES = 20_000  # the quantized EfficientNetV2-M has 4,000
# What exports of the three models, of landmarks and of timm's convolutional networks and
# transformers have, in float32 and quantized, and operators of the same kinds. Each of them ends by
# itself: there is no Loop, If, Scan or SequenceMap.
OPERATORS = frozenset([
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "AveragePool", "MaxPool"),
    *("GlobalAveragePool", "GlobalMaxPool", "BatchNormalization", "GroupNormalization"),
    *("InstanceNormalization", "LayerNormalization", "Clip", "Elu", "Erf", "Exp", "Gelu"),
    *("HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish", "PRelu", "Relu", "Selu", "Sigmoid"),
    *("Softmax", "Softplus", "Softsign", "Tanh", "Abs", "Add", "And", "Cast", "Ceil", "Cos", "Div"),
    *("Equal", "Floor", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max"),
    *("Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Round", "Sin", "Sqrt", "Sub"),
    *("Sum", "Where", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
    *("ReduceSum", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten"),
    *("Gather", "GatherElements", "Pad", "Range", "Reshape", "Resize", "Shape", "Slice"),
    *("SpaceToDepth", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze"),
    *("DequantizeLinear", "QuantizeLinear"),
])  # fmt: skip
EXPORT = "python -m emotion.inference.export RUN_DIR"


def read_onnx(path: Path) -> tuple[bytes, Recipe, PersonModel | None]:
    """Check an exported model, and return its content, its recipe and its person model.

    Raises:
        DamagedFile: the file is missing, damaged, not of this project or of an older version of
            it, refers to data outside itself, or may run for ever.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        data = read_whole(path, MAX_BYTES)
    except FileNotFoundError:
        raise DamagedFile(f"{path} is missing") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        model.Clear()
    if not model.HasField("graph"):
        raise DamagedFile(f"{path} is not an ONNX model, or damaged")
    for part in messages_of(model):
        # ONNX Runtime would follow such a reference to any file, also by an absolute path.
        if isinstance(part, onnx.TensorProto) and (part.external_data or part.data_location):
            raise DamagedFile(f"{path} refers to data outside itself, as no exported model does")
        if isinstance(part, onnx.NodeProto) and (part.domain or part.op_type not in OPERATORS):
            raise DamagedFile(f"{path} has the operator {part.op_type}, as no exported model does")
    if model.functions or len(model.graph.node) > MAX_NODES:
        raise DamagedFile(f"{path} has functions or too many operators")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if RECIPE_KEY not in metadata:
        raise DamagedFile(f"{path} has no recipe: it was not exported by {EXPORT}")
    if with_digest(data[: -len(DIGEST_ENTRY) - 64]) != data:
        raise DamagedFile(f"{path} is damaged, or was changed after its export")
    recipe = Recipe.from_json(metadata[RECIPE_KEY], f"the recipe in {path}")
    return data, recipe, person_in(metadata, path)


def person_in(metadata: Mapping[str, str], path: Path) -> PersonModel | None:
    """Read the person model in the metadata of a file; None if it has none."""
    if PERSON_KEY not in metadata:
        return None
    source = f"the person model in {path}"
    try:
        content = base64.b64decode(metadata[PERSON_KEY], validate=True)
    except ValueError:
        raise DamagedFile(f"{source} is damaged") from None
    return person_from_bytes(content, source)


def write_onnx(model: "onnx.ModelProto", path: Path, metadata: Mapping[str, str]) -> None:
    """Write a model with its digest and metadata, the recipe among them; `model` is changed.

    Paths of this machine are removed.
    """
    for message in messages_of(model):
        for field in ("metadata_props", "doc_string"):  # the exporter notes paths and calls there
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(with_digest(model.SerializeToString()))


def with_digest(data: bytes) -> bytes:
    """Append the digest of a serialized model to its metadata."""
    return data + DIGEST_ENTRY + hashlib.sha256(data).hexdigest().encode()


def messages_of(message: "Message") -> "Iterator[Message]":
    """Yield a protobuf message and all messages inside it."""
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for each in value if field.is_repeated else [value]:
                yield from messages_of(each)
