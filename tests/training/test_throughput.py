import time

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from emotion.training.throughput import TrainClock, ms_per_stack


class Sleeper(pl.LightningModule):
    """Takes known times: 5 ms for a stack, 20 ms for a training step, 100 ms to validate."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.passes = 0

    def forward(self, stacks):
        assert stacks.dtype == torch.uint8 and not self.training
        self.passes += 1
        time.sleep(0.005)
        return self.weight * stacks.float().mean()

    def training_step(self, batch, _):
        time.sleep(0.02)
        return (self.weight * batch[0].float().mean()).sum()

    def validation_step(self, batch, _):
        time.sleep(0.1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


BLACK = torch.zeros(1, 6, 8, 8, dtype=torch.uint8)


def test_milliseconds_are_those_of_one_stack_alone():
    module = Sleeper().train()
    assert ms_per_stack(module, [BLACK]) == pytest.approx(5, rel=0.5)
    assert module.passes == 12 and module.training


def test_slow_network_is_not_asked_ten_times(monkeypatch):
    monkeypatch.setattr("emotion.training.throughput.LIMIT_S", 0.01)
    module = Sleeper()
    ms_per_stack(module, [BLACK])
    assert module.passes <= 2 + 3


def test_clock_counts_training_alone(tmp_path):
    stacks = TensorDataset(torch.ones(10, 6, 8, 8, dtype=torch.uint8), torch.zeros(10).long())
    clock = TrainClock()
    trainer = pl.Trainer(
        max_epochs=2, callbacks=[clock], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir=tmp_path, accelerator="cpu",
    )  # fmt: skip
    assert clock.stacks_per_s is None
    loader = DataLoader(stacks, batch_size=4)
    trainer.fit(Sleeper(), loader, loader)
    assert clock.stacks == 20
    # 6 steps of 20 ms; with the 6 validation steps it would be above 0.7 s
    assert 0.12 <= clock.seconds < 0.4
    assert clock.stacks_per_s == clock.stacks / clock.seconds
