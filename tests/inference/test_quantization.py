"""int8 against the float32 model that it is made of."""

from pathlib import Path

import numpy as np
import pytest

from emotion.inference.onnx_file import with_digest
from emotion.inference.quantization import quantize

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def write_convolution(path: Path) -> None:
    """Write a model of one convolution over two images, and its mean."""
    helper, types = onnx.helper, onnx.TensorProto
    weights = np.random.default_rng(0).normal(size=(5, 2, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["stacks"], ["gray"], to=types.FLOAT),
            helper.make_node("Conv", ["gray", "weights"], ["maps"]),
            helper.make_node("ReduceMean", ["maps"], ["logits"], axes=[2, 3], keepdims=0),
        ],
        "convolution",
        [helper.make_tensor_value_info("stacks", types.UINT8, ["n", 2, 16, 16])],
        [helper.make_tensor_value_info("logits", types.FLOAT, ["n", 5])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(with_digest(model.SerializeToString()))


@pytest.mark.parametrize("num", [1, 3, 9])  # fewer than are looked at together, and one more
def test_int8_is_close_to_float32(num: int, tmp_path: Path, capsys):
    write_convolution(tmp_path / "model.onnx")
    generator = np.random.default_rng(1)
    stacks = generator.integers(256, size=(num, 2, 16, 16), dtype=np.uint8)
    model = quantize(tmp_path / "model.onnx", stacks)
    weights = [t.data_type for t in model.graph.initializer if list(t.dims) == [5, 2, 3, 3]]
    assert weights == [onnx.TensorProto.INT8]
    options = onnxruntime.SessionOptions()  # CPUs without VNNI saturate in optimized kernels
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected, actual = (
        onnxruntime.InferenceSession(data, options).run(None, {"stacks": stacks})[0]
        for data in ((tmp_path / "model.onnx").read_bytes(), model.SerializeToString())
    )
    np.testing.assert_allclose(actual, expected, atol=0.02 * np.abs(expected).max())
    assert not np.array_equal(actual, expected)
    assert capsys.readouterr().out == ""
