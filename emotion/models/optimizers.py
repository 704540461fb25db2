"""What changes the weights: an optimizer of `torch.optim`, and a schedule of its learning rate.

Both are built from plain settings, which a checkpoint keeps.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, LRScheduler, OneCycleLR

from emotion.errors import UserError
from emotion.models.stack_classifier import StackClassifier


def build_optimizer(network: StackClassifier, settings: Mapping[str, Any]) -> Optimizer:
    """Build an optimizer with one group of weights for the backbone and one for the head.

    Args:
        network: whose weights it changes.
        settings: `name` of a class in `torch.optim`; `lr`; `backbone_lr`, None for the same; and
            whatever else that class takes.

    Returns:
        The optimizer; its groups are the backbone and the head, in this order.

    Raises:
        UserError: there is no such class, or it does not take these settings.
    """
    arguments = dict(settings)
    name, backbone_lr = arguments.pop("name"), arguments.pop("backbone_lr", None)
    kinds = {
        key: value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
    }
    if name not in kinds:
        raise UserError(f"optimizer.name={name}: torch.optim has {', '.join(sorted(kinds))}")
    groups = [{"params": list(part.parameters())} for part in (network.backbone, network.head)]
    if backbone_lr is not None:
        groups[0]["lr"] = backbone_lr
    try:
        return kinds[name](groups, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer: torch.optim.{name} refuses its settings: {error}") from error


def build_schedule(
    optimizer: Optimizer, settings: Mapping[str, Any], num_steps: int
) -> tuple[LRScheduler, str]:
    """Build what moves the learning rates of an optimizer while it trains.

    Args:
        optimizer: with the highest rates that its groups are to have.
        settings: `name`, one of exponential, onecycle, cosine and constant, and what that takes.
        num_steps: steps that the optimizer will make in the whole training.

    Returns:
        The schedule, and whether it moves with each `epoch` or `step`.

    Raises:
        UserError: there is no such schedule, or it does not take these settings.
    """
    arguments = dict(settings)
    name = arguments.pop("name")
    if name not in SCHEDULES:
        raise UserError(f"schedule.name={name}: it is one of {', '.join(SCHEDULES)}")
    try:
        return SCHEDULES[name](optimizer, num_steps, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"schedule={name} refuses its settings: {error}") from error


def exponential(
    optimizer: Optimizer, num_steps: int, *, lr_decay: float
) -> tuple[LRScheduler, str]:
    """Multiply the rates by a factor after each epoch."""
    return ExponentialLR(optimizer, lr_decay), "epoch"


def onecycle(optimizer: Optimizer, num_steps: int, *, warmup: float) -> tuple[LRScheduler, str]:
    """Lead the rates up from a 25th over a share of the steps, and down to nothing."""
    highest = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, highest, total_steps=num_steps, pct_start=warmup), "step"


def cosine(optimizer: Optimizer, num_steps: int, *, warmup: float) -> tuple[LRScheduler, str]:
    """Lead the rates up from 0 in a line over a share of the steps, and down half a cosine."""
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup={warmup} is no share of the steps from 0 to below 1")
    up = round(warmup * num_steps)

    def factor(step: int) -> float:
        if step < up:
            return (step + 1) / (up + 1)
        return 0.5 + 0.5 * math.cos(math.pi * (step - up) / (num_steps - up))

    return LambdaLR(optimizer, factor), "step"


def constant(optimizer: Optimizer, num_steps: int) -> tuple[LRScheduler, str]:
    """Leave the rates as they are."""
    return LambdaLR(optimizer, lambda epoch: 1.0), "epoch"


SCHEDULES = {
    "exponential": exponential,
    "onecycle": onecycle,
    "cosine": cosine,
    "constant": constant,
}
