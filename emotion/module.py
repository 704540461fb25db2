"""stacks ──learn──> an emotion: loss, optimizer and metrics around a `StackClassifier`."""

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from torch import nn

from emotion.backbone import StackClassifier
from emotion.metrics import running_metrics


class EmotionModule(pl.LightningModule):
    """Trains a `StackClassifier` by the seed's recipe.

    All hyperparameters are plain numbers and names, so that a checkpoint loads with
    `EmotionModule.load_from_checkpoint(path)` and nothing else. Building one never asks a hub for
    weights: `emotion.backbone.load_pretrained` does, where it is called.
    """

    def __init__(
        self,
        backbone: str,
        num_images: int,
        labels: Sequence[str],
        *,
        hidden: int = 512,
        dropout: tuple[float, float] = (0.6, 0.5),
        channels_last: bool = False,
        lr: float = 1e-4,
        weight_decay: float = 1e-5,
        lr_decay: float = 0.985,
    ) -> None:
        """Build the network with random weights.

        Args:
            backbone: a convolutional network's name in timm.
            num_images: T.
            labels: the classes, in the order of their indices.
            hidden: width of the head's first layer.
            dropout: probability before the head's first and second layer.
            channels_last: keep images and kernels with channels last in memory; the same results
                to rounding, faster on some networks and slower on others.
            lr: Adam's learning rate in the first epoch.
            weight_decay: Adam's L2 penalty.
            lr_decay: factor of the learning rate after each epoch.
        """
        super().__init__()
        self.save_hyperparameters(logger=False)  # the loggers have the config, which says more
        self.network = StackClassifier(
            backbone, num_images, len(labels), hidden=hidden, dropout=tuple(dropout)
        )
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)
        self.loss = nn.CrossEntropyLoss()
        self.metrics = nn.ModuleDict(
            {f"{phase}_": running_metrics(len(labels), f"{phase}/") for phase in ("train", "val")}
        )  # "train" alone would hide a method of the module

    def forward(self, stacks: torch.Tensor) -> torch.Tensor:
        """Classify stacks.

        Args:
            stacks: (N, T, H, W) uint8.

        Returns:
            (N, C) logits.
        """
        assert stacks.dtype == torch.uint8 and stacks.shape[1] == self.hparams.num_images
        images = stacks.to(self.dtype, memory_format=self.memory_format) / 255
        return self.network(images)

    def _step(self, phase: str, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Score a batch; returns the mean loss."""
        stacks, targets = batch
        logits = self(stacks)
        loss = self.loss(logits, targets)
        metrics = self.metrics[f"{phase}_"]
        metrics.update(logits.detach().float(), targets)
        on_epoch = {"on_step": False, "on_epoch": True, "batch_size": len(targets)}
        self.log(f"{phase}/loss", loss, **on_epoch)
        self.log_dict(metrics, **on_epoch)
        return loss

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        """Give the loss of a batch of stacks and class indices."""
        return self._step("train", batch)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        """Score a batch of stacks and class indices."""
        self._step("val", batch)

    def predict_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        """Give the (N, C) probabilities of a batch, float32."""
        return self(batch[0]).float().softmax(dim=1)

    def configure_optimizers(self) -> dict:
        """Set up Adam with a learning rate that shrinks by a factor every epoch."""
        hp = self.hparams
        optimizer = torch.optim.Adam(self.parameters(), lr=hp.lr, weight_decay=hp.weight_decay)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=hp.lr_decay)
        return {"optimizer": optimizer, "lr_scheduler": schedule}
