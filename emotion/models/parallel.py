"""The same training on several processes: what has to look at the whole batch, not at its part.

`trainer=ddp` shares every batch out: of `world` processes, number `rank` takes its stacks rank,
rank + world, rank + 2 world and so on. Averaging the gradients then gives those of the whole batch
only if nothing on the way depends on the part alone. Batch norm and dropout do, so they are
exchanged here; the loss divides by `total` weights (`emotion/models/lightning_module.py`).
"""

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import distributed, nn


@contextmanager
def processes(num: int, command: Sequence[str]) -> Iterator[None]:
    """Make this process the first of several that train together.

    Lightning could start the others itself, but with this process's own command line, which in a
    sweep is that of all cells; and it ends this process where one of them fails.

    Args:
        num: how many there are in all. Where they are there already, because `torchrun` has
            started them or this is one of them, nothing is done.
        command: starts another one.

    Raises:
        RuntimeError: one of the others has failed, after this one came to its end.
    """
    if num == 1 or "LOCAL_RANK" in os.environ:
        yield
        return
    before, threads = os.environ.copy(), torch.get_num_threads()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "NODE_RANK": "0",
        "LOCAL_RANK": "0",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, threads // num))),
    }
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    others = [
        subprocess.Popen(command, env=os.environ | {"LOCAL_RANK": str(rank)})
        for rank in range(1, num)
    ]
    try:
        yield
        if failed := [other.pid for other in others if other.wait()]:
            raise RuntimeError(f"processes {failed} of trainer=ddp failed, see what they printed")
    finally:
        for other in others:
            other.kill()
            other.wait()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(before)
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

    The processes' generators must be in one state, see `emotion.training.callbacks.SeededEpochs`.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Vary (N, F) features."""
        if not self.training:
            return features
        num = int(total(torch.tensor(len(features), device=features.device)))
        kept = super().forward(features.new_ones(num, *features.shape[1:]))  # 0 or 1 / (1 - p)
        return features * kept[distributed.get_rank() :: distributed.get_world_size()]
