"""stacks ──learn──> an emotion: loss, optimizer and metrics around a `StackClassifier`."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import nn
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from emotion.data.augmentation import mix
from emotion.data.batch import Batch, apart
from emotion.errors import UserError
from emotion.models.optimizers import build_optimizer, build_schedule
from emotion.models.parallel import share_batches, total
from emotion.models.running_metrics import running_metrics
from emotion.models.stack_classifier import StackClassifier
from emotion.stacks.landmarks import NUM_POINTS

NORMALIZE = ("range", "stack", "difference")


class EmotionModule(pl.LightningModule):
    """Trains a `StackClassifier`.

    All hyperparameters are plain numbers and names, so that a checkpoint loads with
    `EmotionModule.load_from_checkpoint(path)` and nothing else. Building one never asks a hub for
    weights: `emotion.models.stack_classifier.load_pretrained` does, where it is called.
    """

    def __init__(
        self,
        backbone: str | None,
        num_images: int,
        labels: Sequence[str],
        *,
        hidden: int = 512,
        dropout: tuple[float, float] = (0.6, 0.5),
        fusion: str = "early",
        flips: bool = False,
        normalize: str = "range",
        landmarks: bool = False,
        channels_last: bool = False,
        freeze_epochs: int = 0,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
    ) -> None:
        """Build the network with random weights.

        Args:
            backbone: a convolutional network's name in timm; None for landmarks alone.
            num_images: T.
            labels: the classes, in the order of their indices.
            hidden: width of the head's first layer.
            dropout: probability before the head's first and second layer.
            fusion: how the network sees a stack's images, see `StackClassifier`.
            flips: answer with the mean of what it makes of a stack and of its mirror image.
            normalize: what it sees of their gray levels, see `normalized`.
            landmarks: take their landmarks too.
            channels_last: keep images and kernels with channels last in memory; the same results
                to rounding, faster on some networks and slower on others.
            freeze_epochs: epochs in which the head alone is trained; batch norm keeps its
                statistics as well.
            class_weights: what a stack of each class counts in the train loss; None, 1.
            label_smoothing: share of every train target that is spread over all classes.
            mixup: alpha of the Beta distribution that mixes train stacks are drawn from; 0 mixes
                none.
            optimizer: see `build_optimizer`; None for a module that is not to be trained.
            schedule: see `build_schedule`; None for one that is not to be trained.

        Raises:
            UserError: a value is out of range, or timm has no such network.
        """
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"loss.label_smoothing={label_smoothing}: it is from 0 to below 1")
        if normalize not in NORMALIZE:
            raise UserError(f"model.normalize={normalize}: it is one of {', '.join(NORMALIZE)}")
        if mixup and backbone is None:
            raise UserError(f"loss.mixup={mixup}: landmarks can't be mixed, images can")
        if mixup < 0:
            raise UserError(f"loss.mixup={mixup}: it is 0 (mix nothing) or above, such as 0.2")
        if hidden < 1:
            raise UserError(f"model.hidden={hidden}: it is 1 or above")
        if len(dropout) != 2 or not all(0 <= share < 1 for share in dropout):
            raise UserError(f"model.dropout={list(dropout)}: it is two of 0 to below 1, [0.6,0.5]")
        if freeze_epochs < 0:
            raise UserError(f"model.freeze_epochs={freeze_epochs}: it is 0 or above")
        self.save_hyperparameters(logger=False)  # the loggers have the config, which says more
        self.network = StackClassifier(
            backbone,
            num_images,
            len(labels),
            hidden=hidden,
            dropout=tuple(dropout),
            fusion=fusion,
            flips=flips,
            landmarks=landmarks,
        )
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)
        weight = None if class_weights is None else torch.tensor(class_weights)
        self.loss = nn.CrossEntropyLoss(weight, label_smoothing=label_smoothing)
        phases = ("train", "val")
        self.metrics = nn.ModuleDict(
            {f"{phase}_": running_metrics(len(labels), f"{phase}/") for phase in phases}
        )  # "train" alone would hide a method of the module
        self.losses = nn.ModuleDict({f"{phase}_": MeanMetric() for phase in phases})

    def forward(self, stacks: torch.Tensor, landmarks: torch.Tensor | None = None) -> torch.Tensor:
        """Classify stacks.

        Args:
            stacks: (N, T, H, W) uint8.
            landmarks: (N, T, 468, 3) float32, of their images, for a module that takes them.

        Returns:
            (N, C) logits.
        """
        return self.network(self._images(stacks), landmarks)

    def example(self, num: int, image_px: int) -> tuple[torch.Tensor, ...]:
        """Give `num` black stacks, and landmarks of no face if they are taken, on its device."""
        images = self.hparams.num_images
        shape = (num, images, image_px, image_px)
        stacks = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        if not self.hparams.landmarks:
            return (stacks,)
        points = torch.linspace(-1, 1, NUM_POINTS * 3, device=self.device).sin()
        return stacks, points.reshape(NUM_POINTS, 3).expand(num, images, -1, -1)

    def _images(self, stacks: torch.Tensor) -> torch.Tensor:
        """Turn (N, T, H, W) uint8 into what the network takes."""
        assert stacks.dtype == torch.uint8
        drawn = self.training and self.hparams.fusion == "late"  # perhaps not all of them
        assert drawn or stacks.shape[1] == self.hparams.num_images
        # Converted first: dividing uint8 gives the same numbers and takes twice as long.
        images = stacks.to(self.dtype, memory_format=self.memory_format).div_(255)
        return normalized(images, self.hparams.normalize)

    def setup(self, stage: str) -> None:
        """Prepare for a batch that is shared out over processes."""
        if stage == "fit" and self.trainer.world_size > 1:
            share_batches(self.network, self.trainer.strategy.root_device.type)

    def on_train_epoch_start(self) -> None:
        """Freeze the backbone, or set it free; take down the learning rate."""
        self.network.freeze(self.current_epoch < self.hparams.freeze_epochs)
        head = self.trainer.optimizers[0].param_groups[-1]
        self.log("train/lr", head["lr"], on_step=False, on_epoch=True, sync_dist=True)

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Give the loss of a batch of stacks and class indices.

        The train metrics compare with the class of which a mixed stack has more.
        """
        inputs, targets = apart(batch)
        images = self._images(inputs[0])
        if alpha := self.hparams.mixup:
            images, others, share = mix(images, targets, alpha)
            logits = self.network(images)
            loss = share * self._loss(logits, targets) + (1 - share) * self._loss(logits, others)
        else:
            logits = self.network(images, *inputs[1:])
            loss = self._loss(logits, targets)
        num = total(torch.tensor(len(targets), device=self.device)) if self._is_shared else None
        self._log("train", loss, logits, targets, num)
        return loss

    @property
    def _is_shared(self) -> bool:
        """Whether a batch is spread over processes."""
        return self._trainer is not None and self.trainer.world_size > 1

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Give this process's part of the weighted mean over the batch.

        The mean of the parts over the processes, which is what becomes of their gradients, is the
        mean over the whole batch.
        """
        loss = self.loss(logits, targets)
        if self._is_shared:
            weights = logits.new_ones(len(targets))
            if self.loss.weight is not None:
                weights = self.loss.weight[targets]
            loss = loss * weights.sum() * self.trainer.world_size / total(weights.sum())
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Score a batch of stacks and class indices.

        The loss is the plain cross-entropy, so that runs with other losses can be compared.
        """
        inputs, targets = apart(batch)
        logits = self(*inputs)
        self._log("val", cross_entropy(logits, targets), logits, targets)

    def _log(
        self,
        phase: str,
        loss: torch.Tensor,
        logits: torch.Tensor,
        targets: torch.Tensor,
        num: torch.Tensor | None = None,
    ) -> None:
        """Take down a batch's loss, which counts `num` or (N,) targets, and its metrics."""
        metrics, losses = self.metrics[f"{phase}_"], self.losses[f"{phase}_"]
        metrics.update(logits.detach().float(), targets)
        # not as a number, whose mean over processes Lightning takes with rounded batch sizes
        losses.update(loss.detach(), len(targets) if num is None else num)
        on_epoch = {"on_step": False, "on_epoch": True, "batch_size": len(targets)}
        self.log(f"{phase}/loss", losses, **on_epoch)
        self.log_dict(metrics, **on_epoch)

    def predict_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Give the (N, C) probabilities of a batch, float32."""
        return self(*apart(batch)[0]).float().softmax(dim=1)

    def configure_optimizers(self) -> dict:
        """Set up the optimizer and its schedule."""
        optimizer = build_optimizer(self.network, self.hparams.optimizer)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule, interval = build_schedule(optimizer, self.hparams.schedule, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": interval},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put averaged weights into a checkpoint that holds weights alone.

        Lightning asks callbacks about whole checkpoints only; without this, `best.ckpt` would hold
        other weights than those that were validated.
        """
        if "callbacks" in checkpoint or self._trainer is None:
            return
        for callback in self.trainer.callbacks:
            if isinstance(callback, WeightAveraging):
                callback.on_save_checkpoint(self.trainer, self, checkpoint)
                checkpoint.pop("current_model_state", None)
                checkpoint.pop("averaging_state", None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with a schedule that was laid out for another number of steps.

        Raises:
            UserError: the settings or the data have changed since.
        """
        if self._trainer is None:
            return
        steps = self.trainer.estimated_stepping_batches
        for schedule in checkpoint.get("lr_schedulers", []):
            if schedule.get("total_steps", steps) != steps:
                raise UserError(
                    f"ckpt_path: its schedule was laid out for {schedule['total_steps']} steps, "
                    f"these settings give {steps:.0f}; give the run's own trainer.max_epochs and "
                    "loader.batch_size, or begin anew"
                )


def normalized(images: torch.Tensor, normalize: str) -> torch.Tensor:
    """Bring the gray levels of stacks to what a network takes.

    Args:
        images: (N, T, H, W), 0 to 1.
        normalize: `range`, as they are; `stack`, with mean 0 and deviation 1 over each stack, which
            takes out light and skin; `difference`, the same of each image's difference to the mean
            image of its stack, which takes out the face and leaves what moves.

    Returns:
        (N, T, H, W).
    """
    if normalize == "range":
        return images
    if normalize == "difference":
        images = images - images.mean(dim=1, keepdim=True)
    centered = images - images.mean(dim=(1, 2, 3), keepdim=True)
    deviation = centered.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return centered / (deviation + 1e-3)  # of one gray level in four, for stacks of one gray
