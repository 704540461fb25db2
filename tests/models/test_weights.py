"""Weights: damaged, foreign and not finite ones are refused in one line that names the file."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from emotion.errors import DamagedFile
from emotion.models.weights import load_weights, read_checkpoint


def middle_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(bytes(torch.full((4,), 7.0).numpy()))  # among the weights
    content[place] ^= 1
    path.write_bytes(content)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        middle_byte,
        as_folder,
        as_pipe,
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: torch.save([1], path),
        lambda path: torch.save({"state_dict": [1]}, path),
        lambda path: torch.save({"state_dict": {"weight": Path("x")}}, path),  # a pickle of a class
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: Callable[[Path], object]):
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": {"weight": torch.full((100,), 7.0)}}, path)
    assert read_checkpoint(path)["state_dict"]["weight"].sum() == 700
    damage(path)
    with pytest.raises(DamagedFile, match=r"best\.ckpt") as refused:
        read_checkpoint(path)
    assert "\n" not in str(refused.value) and "weights_only" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"weight": torch.zeros(2, 3)}, "another shape"),
        ({"weight": torch.tensor([[0.0, float("nan")]])}, "not finite"),
        ({"weight": 1.0}, "missing"),
        ({"other": torch.zeros(1)}, "unknown"),
    ],
)
def test_weights_that_do_not_fit_or_are_not_finite_are_refused(changes: dict, named: str):
    module = nn.Linear(2, 1)
    weights = {"weight": torch.zeros(1, 2), "bias": torch.ones(1)}
    load_weights(module, weights, "x.ckpt")
    assert module.bias.item() == 1
    with pytest.raises(DamagedFile, match=rf"^x\.ckpt .*{named}"):
        load_weights(module, weights | changes, "x.ckpt")
