"""Throughput: training on a clock that the test sets, and what the timer of inference runs."""

from types import SimpleNamespace

import pytest
import torch

from emotion.training import throughput
from emotion.training.throughput import TrainClock, ms_per_stack


class Network(torch.nn.Module):
    """Counts its passes."""

    device = torch.device("cpu")
    passes = 0

    def forward(self, stacks: torch.Tensor) -> None:
        assert stacks.dtype == torch.uint8 and not self.training
        assert torch.is_inference_mode_enabled()
        self.passes += 1


def test_inference_is_timed_several_times_with_all_threads():
    module, num_threads = Network().train(), torch.get_num_threads()
    assert ms_per_stack(module, torch.zeros(1, 6, 8, 8, dtype=torch.uint8)) > 0
    assert module.passes > 4 and torch.get_num_threads() == num_threads


def test_training_is_timed_without_validation(monkeypatch: pytest.MonkeyPatch):
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock.now_s)
    timer = TrainClock()
    assert timer.stacks_per_s is None
    trainer, module = SimpleNamespace(num_training_batches=2, world_size=3), Network()
    for _ in range(2):  # epochs
        timer.on_train_epoch_start(trainer, module)
        for index, num in enumerate((4, 1)):
            clock.now_s += 0.5
            timer.on_train_batch_end(trainer, module, None, (None, torch.zeros(num)), index)
        clock.now_s += 10  # validation
    assert (timer.stacks, timer.seconds) == (2 * 5 * 3, 2.0)
    assert timer.stacks_per_s == 15
