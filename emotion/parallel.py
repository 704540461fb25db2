"""The same training on several processes: what has to look at the whole batch, not at its part.

`trainer=ddp` shares every batch out: of `world` processes, number `rank` takes its stacks rank,
rank + world, rank + 2 world and so on. Averaging the gradients then gives those of the whole batch
only if nothing on the way depends on the part alone. Batch norm and dropout do, so they are
exchanged here; the loss divides by `total` weights (`emotion/module.py`).
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import distributed, nn

LIGHTNING_ADDS = {  # to the environment of the first process
    "MASTER_ADDR",
    "MASTER_PORT",
    "NODE_RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "OMP_NUM_THREADS",
}


@contextmanager
def started_as(command: Sequence[str]) -> Iterator[None]:
    """Say how Lightning starts the other processes; leave no trace of them afterwards.

    Lightning starts this process's own command line once more, which in a sweep would be all of
    it, and believes for the rest of this process that somebody else has started the others.

    Args:
        command: script and arguments of the run that the processes share.
    """
    ours, sys.argv = sys.argv, list(command)
    environment, threads = os.environ.copy(), torch.get_num_threads()
    try:
        yield
    finally:
        sys.argv = ours
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for name in LIGHTNING_ADDS - environment.keys():
            os.environ.pop(name, None)
        torch.set_num_threads(threads)


def total(value: torch.Tensor) -> torch.Tensor:
    """Add up a tensor over all processes; gives no gradient."""
    value = value.detach().clone()
    distributed.all_reduce(value)
    return value


class Total(torch.autograd.Function):
    """Like `total`, with a gradient: every process's loss depends on the sum."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        """Add up a tensor over all processes."""
        return total(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        """Add up the gradients of all processes' losses."""
        return total(gradient)


def share_batches(network: nn.Module, device_type: str) -> None:
    """Let batch norm and dropout treat the parts of a batch on all processes as one batch.

    Args:
        network: changed in place; weights and their names stay.
        device_type: where it will run, `cuda` or another.
    """
    # Not torch's own conversion (Lightning's sync_batchnorm): it would drop the activation that
    # timm keeps in its batch norm layers.
    if device_type == "cuda":
        convert_sync_batchnorm(network)
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, SharedBatchNorm(layer).train(layer.training))
            elif type(layer) is nn.Dropout:
                setattr(parent, name, SharedDropout(layer.p).train(layer.training))


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batch on all processes; torch's `SyncBatchNorm` works on GPUs alone."""

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        """Take over a layer's weights, statistics and, of timm's, what follows the norm."""
        super().__init__(layer.num_features, layer.eps, layer.momentum)
        self.weight, self.bias = layer.weight, layer.bias
        for name, buffer in layer.named_buffers(recurse=False):
            setattr(self, name, buffer)
        self.drop = getattr(layer, "drop", nn.Identity())
        self.act = getattr(layer, "act", nn.Identity())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise (N, F, h, w) features; N may differ between processes."""
        images = self._normalise(images) if self.training else super().forward(images)
        return self.act(self.drop(images))

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        places = total(torch.tensor(float(images.numel() // images.shape[1])))
        mean = Total.apply(images.sum(dim=(0, 2, 3))) / places  # (F,)
        centred = images - mean[:, None, None]
        variance = Total.apply(centred.square().sum(dim=(0, 2, 3))) / places
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * places / (places - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


class SharedDropout(nn.Dropout):
    """Dropout that draws for the batch on all processes and takes this one's rows.

    The processes' generators must be in one state, see `emotion.callbacks.SeededEpochs`.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Vary (N, F) features."""
        if not self.training:
            return features
        num = int(total(torch.tensor(len(features), device=features.device)))
        kept = super().forward(features.new_ones(num, *features.shape[1:]))  # 0 or 1 / (1 - p)
        return features * kept[distributed.get_rank() :: distributed.get_world_size()]
