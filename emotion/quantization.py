"""float32 ──quantize──> int8: an exported model with 8-bit weights and activations.

Static quantization, in ONNX's own operators: ranges of activations are measured once, on train
stacks. Dynamic quantization, which measures them for every input, has nothing to offer here:
ONNX Runtime runs convolutions faster in float32 than with ranges that it has to find out first.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from emotion.onnx_runtime import INPUT

if TYPE_CHECKING:
    import onnx

MAX_LOSS = 0.01  # of accuracy on validation stacks; int8 that loses as much is not offered


def quantize(path: Path, stacks: np.ndarray) -> "onnx.ModelProto":
    """Quantize convolutions and linear layers.

    Args:
        path: of a float32 model.
        stacks: (N, T, image_px, image_px) uint8, from which the ranges are taken.

    Returns:
        The model, with no metadata.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Stacks(CalibrationDataReader):
        """Gives one stack after another."""

        def __init__(self) -> None:
            self.left: Iterator[np.ndarray] = iter(stacks)

        def get_next(self) -> dict[str, np.ndarray] | None:
            stack = next(self.left, None)
            return None if stack is None else {INPUT: stack[None]}

    with TemporaryDirectory() as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            Stacks(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load(quantized)
    return model
