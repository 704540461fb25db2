"""Synchronized batch norm computes the same as timm's layers, including their activation."""

from types import SimpleNamespace

import pytest
import torch
from timm.layers import BatchNormAct2d, SyncBatchNormAct

from emotion.models.lightning_module import EmotionModule
from emotion.models.sync_batch_norm import TimmSyncBatchNorm


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batch_norm_is_converted_only_on_gpus_and_computes_the_same(device):
    torch.manual_seed(0)
    module = EmotionModule("mobilenetv3_small_050", 6, ["a", "b"]).eval()
    stacks = torch.randint(256, (2, 6, 64, 64), dtype=torch.uint8)
    expected = module(stacks)
    module._trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device(device)), barebones=False
    )
    plugin = TimmSyncBatchNorm()
    converted = plugin.revert(plugin.apply(module))
    kinds = {type(layer) for layer in converted.network.backbone.modules()}
    assert (SyncBatchNormAct in kinds) == (BatchNormAct2d not in kinds) == (device == "cuda")
    torch.testing.assert_close(converted(stacks), expected)
