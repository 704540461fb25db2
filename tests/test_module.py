import subprocess
import sys

import pytest
import torch

from emotion.module import EmotionModule

SMALL = "mobilenetv3_small_050"


def test_recipe_is_the_seeds(compose):
    cfg = compose("train")
    module = EmotionModule(SMALL, 6, ["a", "b"], **cfg.optimizer)
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]
    assert type(optimizer) is torch.optim.Adam
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (1e-4, 1e-5)
    optimizer.step()
    schedule.step()
    assert group["lr"] == pytest.approx(0.985e-4)
    assert (cfg.loader.batch_size, cfg.trainer.max_epochs) == (24, 50)
    head = [(type(layer).__name__, getattr(layer, "p", None)) for layer in module.network.head]
    assert head == [
        ("Dropout", 0.6), ("Linear", None), ("ReLU", None), ("Dropout", 0.5), ("Linear", None),
    ]  # fmt: skip
    assert (module.network.head[1].out_features, cfg.model.hidden) == (512, 512)


def test_input_is_scaled_to_one_and_not_normalised():
    torch.manual_seed(0)
    module = EmotionModule(SMALL, 6, ["a", "b", "c"]).eval()
    stacks = torch.randint(256, (2, 6, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(module(stacks), module.network(stacks.float() / 255))


def test_channels_last_changes_rounding_alone():
    torch.manual_seed(0)
    first = EmotionModule(SMALL, 6, ["a", "b"]).eval()
    last = EmotionModule(SMALL, 6, ["a", "b"], channels_last=True).eval()
    last.load_state_dict(first.state_dict())
    stacks = torch.randint(256, (2, 6, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(last(stacks), first(stacks), rtol=1e-3, atol=1e-5)
    assert last.network.backbone.conv_stem.weight.is_contiguous(memory_format=torch.channels_last)


def test_it_can_learn_by_heart():
    torch.manual_seed(0)
    module = EmotionModule(SMALL, 6, ["a", "b"], dropout=(0.0, 0.0), lr=3e-3)
    stacks = torch.randint(256, (8, 6, 32, 32), dtype=torch.uint8)
    targets = torch.tensor([0, 1] * 4)
    optimizer = module.configure_optimizers()["optimizer"]
    module.log = module.log_dict = lambda *_, **__: None  # there is no trainer to log to
    for _ in range(40):
        optimizer.zero_grad()
        loss = module.training_step((stacks, targets), 0)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_checkpoint_loads_without_hydra(tmp_path):
    import pytorch_lightning as pl

    module = EmotionModule(SMALL, 6, ["a", "b"])
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    code = f"""
import sys
import torch
torch.load({str(tmp_path / "x.ckpt")!r}, weights_only=True)  # holds no objects but plain ones
from emotion.module import EmotionModule
module = EmotionModule.load_from_checkpoint({str(tmp_path / "x.ckpt")!r})
assert list(module.hparams.labels) == ["a", "b"] and module.hparams.num_images == 6
assert not [name for name in sys.modules if name.split(".")[0] in ("hydra", "omegaconf")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
