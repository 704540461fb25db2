"""Batch norm over the batches of all GPUs."""

import pytorch_lightning as pl
from pytorch_lightning.plugins import LayerSync
from timm.layers import convert_sync_batchnorm


class TimmSyncBatchNorm(LayerSync):
    """Synchronizes batch norm between GPUs; it has no effect on one device or on CPUs.

    Lightning's `sync_batchnorm` would drop the activation that timm has in its batch norm layers.
    """

    def apply(self, model: pl.LightningModule) -> pl.LightningModule:
        """Convert the batch norm layers of a model that trains on GPUs."""
        if model.trainer.strategy.root_device.type == "cuda":
            model = convert_sync_batchnorm(model)
        return model

    def revert(self, model: pl.LightningModule) -> pl.LightningModule:
        """Leave the layers; outside of training they compute the same."""
        return model
