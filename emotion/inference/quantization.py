"""float32 ──quantize──> int8: an exported model with 8-bit weights and activations.

Static quantization, in ONNX's own operators: the ranges of activations are measured once, on train
stacks. Dynamic quantization, which measures them for every stack, has nothing to offer here:
ONNX Runtime runs such convolutions slower than those in float32.
"""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from emotion.inference.onnx_runtime import INPUT, LANDMARKS

if TYPE_CHECKING:
    import onnx

# Share of activations, in percent, that the 256 steps span. On the demo's 120 val stacks, with
# MobileNetV3, probabilities moved by 0.015 on average under 99.99, and by 0.024 under 100, where
# few outliers take steps away from all others.
PERCENTILE = 99.99
AT_ONCE = 4  # stacks whose activations are held in memory; all of 64 would take gigabytes


def quantize(path: Path, inputs: Sequence[np.ndarray]) -> "onnx.ModelProto":
    """Quantize whatever ONNX Runtime can compute in 8 bits.

    Args:
        path: of a float32 model.
        inputs: what `Backend.classify` takes, of N stacks, from which ranges are taken; those
            beyond the last multiple of `AT_ONCE` are not looked at, unless there are fewer.

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

    at_once = min(AT_ONCE, len(inputs[0]))
    num = len(inputs[0]) // at_once * at_once

    class Reader(CalibrationDataReader):
        """Gives one stack after another of those that it is set to."""

        def __init__(self) -> None:
            self.left = iter(())

        def __len__(self) -> int:
            return num

        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = iter(range(start_index, min(end_index, num)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            place = next(self.left, None)
            if place is None:
                return None
            names = (INPUT, LANDMARKS)[: len(inputs)]
            return {n: each[place : place + 1] for n, each in zip(names, inputs, strict=True)}

    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE, "CalibStridedMinMax": at_once},
        )
        return onnx.load(quantized)
