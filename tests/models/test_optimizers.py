"""Learning rates and parameter groups against values computed by hand."""

import math

import pytest
import torch

from emotion.errors import UserError
from emotion.models.optimizers import build_optimizer, build_schedule
from emotion.models.stack_classifier import StackClassifier

SMALL = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def network():
    return StackClassifier(SMALL, 6, 3)


@pytest.fixture
def settings(compose):
    """Return a function that composes the settings of an option of a config group."""
    return lambda group, option: dict(compose("train", [f"{group}={option}"])[group])


def rates(network, schedule, num_steps, lr=1.0, backbone_lr=None):
    optimizer = build_optimizer(network, {"name": "SGD", "lr": lr, "backbone_lr": backbone_lr})
    scheduler, _ = build_schedule(optimizer, schedule, num_steps)
    seen = []
    for _ in range(num_steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize(
    ("option", "kind", "lr", "decay"),
    [("adam", torch.optim.Adam, 1e-4, 1e-5), ("adamw", torch.optim.AdamW, 1e-3, 0.05)],
)
def test_optimizer_options(network, settings, option, kind, lr, decay):
    optimizer = build_optimizer(network, settings("optimizer", option))
    assert type(optimizer) is kind
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(lr, decay)] * 2


def test_backbone_and_head_are_parameter_groups_with_their_own_rates(network):
    optimizer = build_optimizer(network, {"name": "Adam", "lr": 1e-3, "backbone_lr": 1e-5})
    backbone, head = optimizer.param_groups
    assert (backbone["lr"], head["lr"]) == (1e-5, 1e-3)
    grouped = [*map(id, backbone["params"]), *map(id, head["params"])]
    assert sorted(grouped) == sorted(map(id, network.parameters()))
    assert {id(p) for p in head["params"]} == {id(p) for p in network.head.parameters()}


def test_exponential_is_the_seed_projects(network, settings):
    schedule = settings("schedule", "exponential")
    assert rates(network, schedule, 3, lr=1e-4) == [
        [pytest.approx(1e-4 * 0.985**epoch)] * 2 for epoch in range(3)
    ]
    optimizer = build_optimizer(network, {"name": "SGD", "lr": 1.0})
    assert build_schedule(optimizer, schedule, 3)[1] == "epoch"


def test_onecycle_rises_and_decreases_to_0(network, settings):
    seen = rates(network, settings("schedule", "onecycle"), 100, lr=1.0, backbone_lr=0.1)
    head = [rate for _, rate in seen]
    assert head[0] == pytest.approx(1 / 25) and head[29] == max(head) == pytest.approx(1.0)
    assert head[-1] == pytest.approx(1 / 25 / 1e4, rel=0.01)
    assert all(backbone == pytest.approx(0.1 * rate) for backbone, rate in seen)


def test_cosine_has_a_linear_warmup_and_half_a_cosine(network, settings):
    head = [rate for _, rate in rates(network, settings("schedule", "cosine"), 100)]
    assert head[:5] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    assert head[5] == 1.0
    assert head[5 + 38] == pytest.approx((1 + math.cos(math.pi * 38 / 95)) / 2)
    assert 0 < head[-1] < 0.001


def test_constant_keeps_the_rates(network, settings):
    assert rates(network, settings("schedule", "constant"), 5) == [[1.0, 1.0]] * 5


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"name": "Adamm", "lr": 1}, r"optimizer\.name .*Adam, .*'Adamm'"),
        ({"name": "Adam", "lr": -1}, r"optimizer: torch.optim.Adam .*-1"),
        ({"name": "Adam", "lr": 1, "rate": 1}, r"optimizer: torch.optim.Adam .*'rate'"),
    ],
)
def test_errors_name_wrong_settings(network, optimizer, message):
    with pytest.raises(UserError, match=message):
        build_optimizer(network, optimizer)
