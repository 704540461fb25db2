"""Throughput, measured on a clock that the test sets."""

from types import SimpleNamespace

import pytest
import torch

from emotion.training import throughput
from emotion.training.throughput import TrainClock, ms_per_stack

BLACK = torch.zeros(1, 6, 8, 8, dtype=torch.uint8)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return a clock whose `now_s` the test sets."""
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock.now_s)
    return clock


class Network(torch.nn.Module):
    """Takes the given times, in turn; the first two passes are the warm-up."""

    device = torch.device("cpu")

    def __init__(self, clock: SimpleNamespace, *times_s: float):
        super().__init__()
        self.clock, self.times_s, self.passes = clock, times_s, 0

    def forward(self, stacks: torch.Tensor) -> None:
        assert stacks.dtype == torch.uint8 and not self.training
        self.clock.now_s += self.times_s[self.passes % len(self.times_s)]
        self.passes += 1


def test_a_single_slow_pass_does_not_change_the_result(clock):
    module = Network(clock, *[0.005] * 19, 0.850).train()
    assert ms_per_stack(module, BLACK) == pytest.approx(5)
    assert module.passes == throughput.WARM_UP + throughput.MAX_REPEATS and module.training


def test_a_slow_network_is_timed_fewer_times_but_still_several(clock):
    module = Network(clock, 1.5)
    assert ms_per_stack(module, BLACK) == pytest.approx(1500)
    assert module.passes == throughput.WARM_UP + throughput.MIN_REPEATS >= 5


def test_training_is_timed_without_validation(clock):
    timer = TrainClock()
    assert timer.stacks_per_s is None
    trainer, module = SimpleNamespace(num_training_batches=2, world_size=3), Network(clock, 0)
    for _ in range(2):  # epochs
        timer.on_train_epoch_start(trainer, module)
        for index, num in enumerate((4, 1)):
            clock.now_s += 0.5
            timer.on_train_batch_end(trainer, module, None, (None, torch.zeros(num)), index)
        clock.now_s += 10  # validation
    assert (timer.stacks, timer.seconds) == (2 * 5 * 3, 2.0)
    assert timer.stacks_per_s == 15
