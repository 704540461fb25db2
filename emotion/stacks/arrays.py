"""NumPy files of the values of a stack's images, such as landmarks and blendshapes."""

import io
from pathlib import Path

import numpy as np

from emotion.files import unfinished


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array, float32, as a NumPy file, atomically."""
    assert array.dtype == np.float32
    content = io.BytesIO()  # in memory first: NumPy's own writer ignores a full disk
    np.save(content, array, allow_pickle=False)
    with unfinished(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_array(path: Path) -> np.ndarray:
    """Read what `write_array` wrote."""
    return np.load(path, allow_pickle=False)
