"""Build an optimizer of `torch.optim` and its learning rate schedule from plain settings."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, LRScheduler, OneCycleLR

from emotion.errors import UserError
from emotion.models.stack_classifier import StackClassifier

Schedule = tuple[LRScheduler, str]  # and whether it is updated after each `epoch` or `step`


def build_optimizer(network: StackClassifier, settings: Mapping[str, Any]) -> Optimizer:
    """Build an optimizer with parameter groups for the backbone and the head, in this order.

    Args:
        network: the network to train.
        settings: `name` of a class in `torch.optim`; `lr`; `backbone_lr`, None for the same; and
            other arguments of that class.

    Raises:
        UserError: the class is unknown or refuses its arguments.
    """
    arguments = dict(settings)
    name, backbone_lr = arguments.pop("name"), arguments.pop("backbone_lr", None)
    kinds = {
        key: value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
    }
    if name not in kinds:
        raise UserError(f"optimizer.name must be one of {', '.join(sorted(kinds))}, got {name!r}")
    groups = [{"params": list(part.parameters())} for part in (network.backbone, network.head)]
    if backbone_lr is not None:
        groups[0]["lr"] = backbone_lr
    try:
        return kinds[name](groups, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer: torch.optim.{name} refuses its arguments: {error}") from error


def build_schedule(optimizer: Optimizer, settings: Mapping[str, Any], num_steps: int) -> Schedule:
    """Build a learning rate schedule.

    Args:
        optimizer: its learning rates are the highest of the schedule.
        settings: `name`, a key of `SCHEDULES`, and the arguments of that function.
        num_steps: optimizer steps of the whole training.

    Raises:
        UserError: the schedule is unknown or refuses its arguments.
    """
    arguments = dict(settings)
    name = arguments.pop("name")
    if name not in SCHEDULES:
        raise UserError(f"schedule.name must be one of {', '.join(SCHEDULES)}, got {name!r}")
    try:
        return SCHEDULES[name](optimizer, num_steps, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"schedule={name} refuses its arguments: {error}") from error


def exponential(optimizer: Optimizer, num_steps: int, *, lr_decay: float) -> Schedule:
    """Multiply the learning rates by a factor after each epoch."""
    return ExponentialLR(optimizer, lr_decay), "epoch"


def onecycle(optimizer: Optimizer, num_steps: int, *, warmup: float) -> Schedule:
    """Increase the learning rates from a 25th over a share of the steps, then decrease to 0."""
    highest = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, highest, total_steps=num_steps, pct_start=warmup), "step"


def cosine(optimizer: Optimizer, num_steps: int, *, warmup: float) -> Schedule:
    """Warm up linearly from 0 over a share of the steps, then follow half a cosine."""
    up = round(warmup * num_steps)

    def factor(step: int) -> float:
        if step < up:
            return (step + 1) / (up + 1)
        return 0.5 + 0.5 * math.cos(math.pi * (step - up) / (num_steps - up))

    return LambdaLR(optimizer, factor), "step"


def constant(optimizer: Optimizer, num_steps: int) -> Schedule:
    """Keep the learning rates."""
    return LambdaLR(optimizer, lambda epoch: 1.0), "epoch"


SCHEDULES = {each.__name__: each for each in (exponential, onecycle, cosine, constant)}
