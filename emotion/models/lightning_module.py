"""Lightning modules: loss, optimizer and metrics around the two kinds of classifiers."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import nn
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from emotion.data.augmentation import mix
from emotion.data.batch import Batch
from emotion.errors import UserError
from emotion.models.face_classifier import FaceClassifier
from emotion.models.optimizers import build_optimizer, build_schedule
from emotion.models.stack_classifier import StackClassifier
from emotion.stacks.face_values import PARTS, values_shape


class UnweightedAverageRecall(MulticlassConfusionMatrix):
    """UAR; macro `MulticlassAccuracy` would count a class that is only predicted as 0."""

    higher_is_better = True

    def compute(self) -> torch.Tensor:
        """Return the mean recall of the classes that occur, a scalar."""
        confusion = super().compute()
        occurring = confusion.sum(dim=1)
        return (confusion.diagonal() / occurring)[occurring > 0].mean()


def running_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Return metrics that are updated with (N, C) logits and (N,) class indices of a batch."""
    metrics = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
        "uar": UnweightedAverageRecall(num_classes),
        "macro_f1": MulticlassF1Score(num_classes, average="macro"),
    }
    return MetricCollection(metrics, prefix=prefix)


class ClassifierModule(pl.LightningModule):
    """Base class of the modules: metrics, validation and prediction.

    All hyperparameters are plain numbers and names, so that a checkpoint loads with
    `load_from_checkpoint(path)` and nothing else.
    """

    network: nn.Module

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        phases = ("train", "val")  # as a key, "train" alone would hide a method of the module
        self.metrics = nn.ModuleDict(
            {f"{phase}_": running_metrics(num_classes, f"{phase}/") for phase in phases}
        )
        self.losses = nn.ModuleDict({f"{phase}_": MeanMetric() for phase in phases})

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the (N, C) logits of a batch."""
        return self.network(inputs)

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the (N, F) features of a batch, from which the last layers get the logits."""
        return self.network.features(inputs)

    @property
    def feature_blocks(self) -> tuple[int, ...]:
        """Widths of the groups of features, see `PersonModel.fit`; () for one group."""
        return ()

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log metrics and plain cross-entropy, which compares runs with different train losses."""
        self._log_plain("val", batch)

    def predict_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Return the (N, C) float32 probabilities of a batch."""
        return self(batch[0]).float().softmax(dim=1)

    def _log(
        self, phase: str, loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor
    ) -> None:
        """Log a batch's loss and metrics, as averages over the epoch and all processes."""
        metrics, losses = self.metrics[f"{phase}_"], self.losses[f"{phase}_"]
        metrics.update(logits.detach().float(), targets)
        losses.update(loss.detach(), len(targets))  # sync_dist of `log` would round uneven shares
        on_epoch = {"on_step": False, "on_epoch": True, "batch_size": len(targets)}
        self.log(f"{phase}/loss", losses, **on_epoch)
        self.log_dict(metrics, **on_epoch)

    def _log_plain(self, phase: str, batch: Batch) -> None:
        inputs, targets = batch
        logits = self(inputs)
        self._log(phase, cross_entropy(logits, targets), logits, targets)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put averaged weights into a checkpoint that holds weights alone, as they were validated.

        Lightning calls callbacks for whole checkpoints only.
        """
        if "callbacks" in checkpoint or self._trainer is None:
            return
        for callback in self.trainer.callbacks:
            if isinstance(callback, WeightAveraging):
                callback.on_save_checkpoint(self.trainer, self, checkpoint)
                checkpoint.pop("current_model_state", None)
                checkpoint.pop("averaging_state", None)


class EmotionModule(ClassifierModule):
    """Trains a `StackClassifier` by gradient descent.

    Building one never contacts a hub: `emotion.models.pretrained.load_pretrained` does.
    """

    def __init__(
        self,
        backbone: str,
        num_images: int,
        labels: Sequence[str],
        *,
        image_px: int | None = None,
        hidden: int = 512,
        dropout: tuple[float, float] = (0.6, 0.5),
        fusion: str = "early",
        normalize: str = "range",
        channels_last: bool = False,  # the same results up to rounding, faster for some networks
        freeze_epochs: int = 0,  # which train the head alone and keep the batch norm statistics
        class_weights: Sequence[float] | None = None,  # of the train loss
        label_smoothing: float = 0.0,
        mixup: float = 0.0,  # alpha of the Beta distribution, see `mix`
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
    ) -> None:
        """Build the network with random weights.

        `StackClassifier`, `normalized`, `build_optimizer` and `build_schedule` describe their
        arguments; a module that is not trained needs neither optimizer nor schedule.
        """
        super().__init__(len(labels))
        self.save_hyperparameters(logger=False)  # the loggers have the whole config
        options = {"image_px": image_px, "hidden": hidden, "dropout": dropout, "fusion": fusion}
        self.network = StackClassifier(backbone, num_images, len(labels), **options)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)
        weight = None if class_weights is None else torch.tensor(class_weights)
        self.loss = nn.CrossEntropyLoss(weight, label_smoothing=label_smoothing)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the (N, C) logits of (N, T, H, W) uint8 stacks, 0 to 255."""
        return self.network(self._images(inputs))

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the (N, F) pooled features of (N, T, H, W) uint8 stacks, 0 to 255."""
        return self.network.features(self._images(inputs))

    def example(self, num: int, image_px: int) -> torch.Tensor:
        """Return `num` black stacks on the module's device."""
        shape = (num, self.hparams.num_images, image_px, image_px)
        return torch.zeros(shape, dtype=torch.uint8, device=self.device)

    def _images(self, stacks: torch.Tensor) -> torch.Tensor:
        """Convert (N, T, H, W) uint8 to what the network takes."""
        assert stacks.dtype == torch.uint8 and stacks.shape[1] == self.hparams.num_images
        # Converted first: dividing uint8 gives the same numbers and takes twice as long.
        images = stacks.to(self.dtype, memory_format=self.memory_format).div_(255)
        return normalized(images, self.hparams.normalize)

    def setup(self, stage: str) -> None:
        """Try the backbone on a stack, because some refuse an image size only then."""
        image_px = self.hparams.image_px
        if stage != "fit" or image_px is None:
            return
        try:
            with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
                self.eval()(self.example(1, image_px))
        except Exception as error:  # each network has its own
            raise UserError(
                f"model.backbone={self.hparams.backbone} cannot take {self.hparams.num_images} "
                f"images of {image_px} px: {' '.join(str(error).split())[:200]}"
            ) from error
        self.train()

    def on_train_epoch_start(self) -> None:
        """Freeze or unfreeze the backbone, and log the learning rate."""
        self.network.freeze(self.current_epoch < self.hparams.freeze_epochs)
        head = self.trainer.optimizers[0].param_groups[-1]
        self.log("train/lr", head["lr"], on_step=False, on_epoch=True, sync_dist=True)

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        """Return the loss of a batch; with mixup, metrics use the class with the larger share.

        Raises:
            UserError: the loss is not finite. On a GPU, which would have to wait, only every 50th
                step is checked: the weights stay not finite.
        """
        stacks, targets = batch
        images = self._images(stacks)
        if alpha := self.hparams.mixup:
            images, others, share = mix(images, targets, alpha)
            logits = self.network(images)
            loss = share * self.loss(logits, targets) + (1 - share) * self.loss(logits, others)
        else:
            logits = self.network(images)
            loss = self.loss(logits, targets)
        if (loss.device.type == "cpu" or index % 50 == 0) and not loss.isfinite():
            raise UserError(
                f"the train loss is {loss.item()} in step {index + 1} of epoch "
                f"{self.current_epoch + 1}, at a learning rate of "
                f"{self.optimizers().param_groups[-1]['lr']:.3g}: try a lower optimizer.lr, "
                "trainer.gradient_clip_val=1 or trainer.precision=32-true"
            )
        self._log("train", loss, logits, targets)
        return loss

    def configure_optimizers(self) -> dict:
        """Build the optimizer and its schedule."""
        optimizer = build_optimizer(self.network, self.hparams.optimizer)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule, interval = build_schedule(optimizer, self.hparams.schedule, steps)
        scheduler = {"scheduler": schedule, "interval": interval}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume with a schedule that was built for another number of steps."""
        if self._trainer is None:
            return
        steps = self.trainer.estimated_stepping_batches
        for schedule in checkpoint.get("lr_schedulers", []):
            if schedule.get("total_steps", steps) != steps:
                raise UserError(
                    f"ckpt_path: its schedule was built for {schedule['total_steps']} steps, "
                    f"these settings give {steps:.0f}; use the run's own trainer.max_epochs and "
                    "loader.batch_size, or start anew"
                )


class DiscriminantModule(ClassifierModule):
    """Fits a `FaceClassifier` in closed form before the first epoch; it has no optimizer.

    Epochs change nothing; one, whatever the trainer has, gives a run the checkpoint, curves and
    scores of any other run.
    """

    def __init__(
        self,
        inputs: str,
        num_images: int,
        labels: Sequence[str],
        components: int = 40,
        shrinkage: float = 0.6,
    ) -> None:
        """Build a classifier of the values of T faces; see `FaceClassifier` and its `fit`."""
        super().__init__(len(labels))
        self.save_hyperparameters(logger=False)
        self.network = FaceClassifier(inputs, len(labels))

    @property
    def feature_blocks(self) -> tuple[int, ...]:
        """Widths of the features of each part, such as landmarks and blendshapes."""
        return tuple(part.num_features for part in self.network.parts.values())

    def example(self, num: int, image_px: int) -> torch.Tensor:
        """Return `num` times the values of T faces that do not exist, on the module's device."""
        shape = values_shape(self.hparams.inputs)
        values = torch.linspace(-1, 1, prod(shape), device=self.device).sin()
        return values.reshape(shape).expand(num, self.hparams.num_images, *shape)

    def setup(self, stage: str) -> None:
        """Refuse to be fitted in several processes."""
        if self.trainer.world_size > 1:
            inputs = self.hparams.inputs
            raise UserError(f"model={inputs} is fitted in one process: leave out trainer=ddp")

    def on_fit_start(self) -> None:
        """Fit the classifier on all train stacks."""
        self.trainer.fit_loop.max_epochs = 1
        loader = self.trainer.datamodule.evaluation_dataloader("train")
        values, targets = (torch.cat(each).numpy() for each in zip(*loader, strict=True))
        self.network.fit(values, targets, self.hparams.components, self.hparams.shrinkage)

    def training_step(self, batch: Batch, _: int) -> None:
        """Score a batch; return no loss, so that nothing is optimized."""
        self._log_plain("train", batch)

    def configure_optimizers(self) -> None:
        """Return no optimizer."""


# By Recipe.inputs
MODULES = {"stacks": EmotionModule} | dict.fromkeys(PARTS, DiscriminantModule)


def normalized(images: torch.Tensor, normalize: str) -> torch.Tensor:
    """Normalize the gray levels of (N, T, H, W) stacks from 0 to 1.

    `range` leaves them; `stack` gives each stack mean 0 and standard deviation 1, which removes
    light and skin color.
    """
    if normalize == "range":
        return images
    centered = images - images.mean(dim=(1, 2, 3), keepdim=True)
    deviation = centered.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return centered / (deviation + 1e-3)  # a quarter of a gray level, for uniform stacks
