"""Read and load weights: any damage is an error of one line, and no code in a file runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import nn

from emotion.errors import DamagedFile, is_machine_fault
from emotion.files import open_regular


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU, after checking the checksums of its archive.

    Raises:
        DamagedFile: it is missing, damaged or no checkpoint; without torch's advice to load it in
            a way that runs code from it.
    """
    try:
        with open(path, "rb", opener=open_regular) as file:
            check_archive(file)
            file.seek(0)
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint["state_dict"], Mapping):
            raise TypeError("no weights")
    except Exception as error:  # of files, archives, pickles and torch
        if is_machine_fault(error):
            raise
        raise DamagedFile(f"{path} is missing, damaged or no checkpoint of train.py") from None
    return checkpoint


def check_archive(file: BinaryIO | Path) -> None:
    """Raise an error if an archive of torch is compressed, or not what was written."""
    with ZipFile(file) as archive:
        is_stored = all(each.compress_type == ZIP_STORED for each in archive.infolist())
        if not is_stored or archive.testzip():
            raise ValueError("its checksums are wrong")


def load_weights(module: nn.Module, weights: Mapping[str, Any], what: str) -> None:
    """Load weights into a module, or raise a DamagedFile if they are not finite or do not fit.

    `what` names their file in the error.
    """
    own = module.state_dict()
    for key in own.keys() | weights.keys():
        value = weights.get(key)
        if key not in own or not isinstance(value, torch.Tensor):
            raise DamagedFile(f"{what} does not fit the model: {key} is missing or unknown")
        if value.shape != own[key].shape:
            raise DamagedFile(f"{what} does not fit the model: {key} has another shape")
        if not value.isfinite().all():
            raise DamagedFile(f"{what} has weights that are not finite: {key}")
    module.load_state_dict(weights)
