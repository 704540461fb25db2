"""Build an optimizer of `torch.optim` and its learning rate schedule from plain settings."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, LRScheduler, OneCycleLR

from emotion.errors import UserError
from emotion.models.stack_classifier import StackClassifier


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
    kind = getattr(torch.optim, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
        raise UserError(
            f"optimizer.name must be a class of torch.optim (Adam, AdamW, SGD, ...), got {name!r}"
        )
    groups = [{"params": list(part.parameters())} for part in (network.backbone, network.head)]
    if backbone_lr is not None:
        groups[0]["lr"] = backbone_lr
    try:
        return kind(groups, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer: torch.optim.{name} refuses its arguments: {error}") from error


def build_schedule(
    optimizer: Optimizer, settings: Mapping[str, Any], num_steps: int
) -> tuple[LRScheduler, str]:
    """Build a learning rate schedule, whose highest rates are those of the optimizer.

    Args:
        optimizer: its learning rates are scheduled.
        settings: the keys of an option of `conf/schedule`.
        num_steps: optimizer steps of the whole training.

    Returns:
        The schedule, and whether it is updated after each `epoch` or each `step`.
    """
    if settings["name"] == "exponential":
        return ExponentialLR(optimizer, settings["lr_decay"]), "epoch"
    warmup = settings["warmup"]
    if settings["name"] == "onecycle":  # starts with a 25th of the highest rates
        highest = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, highest, total_steps=num_steps, pct_start=warmup), "step"
    num_warmup = int(warmup * num_steps)

    def cosine(step: int) -> float:
        if step < num_warmup:
            return (step + 1) / (num_warmup + 1)
        return 0.5 + 0.5 * math.cos(math.pi * (step - num_warmup) / (num_steps - num_warmup))

    return LambdaLR(optimizer, cosine), "step"
