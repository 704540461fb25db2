"""Several processes that share each batch: the results of one process with the whole batch."""

import csv
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import distributed, multiprocessing, nn

from emotion import REPOSITORY
from emotion.data.datamodule import share_of
from emotion.errors import UserError
from emotion.models.parallel import SharedBatchNorm, SharedDropout, processes, share_batches

pytestmark = pytest.mark.slow


def in_two_processes(function, tmp_path, *arguments):
    """Call a function as each of two gloo processes; gives what they return, in order of rank."""
    init = f"file://{tmp_path}/meeting"
    multiprocessing.spawn(call, (function, init, str(tmp_path), *arguments), nprocs=2)
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def call(rank, function, init, folder, *arguments):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=2)
    torch.save(function(rank, *arguments), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), BatchNormAct2d(4, act_layer=nn.Hardswish), nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(5, 2),
    )  # fmt: skip


def learn(network, images, scale=1.0):
    """Train one step; gives the gradients' and the buffers' state."""
    torch.manual_seed(7)  # dropout's
    loss = network(images).square().sum() * scale
    loss.backward()
    state = dict(network.named_buffers())
    state |= {f"{name}.grad": p.grad for name, p in network.named_parameters()}
    return state


def learn_part(rank, images):
    network = small_network()
    share_batches(network, "cpu")
    kinds = [type(layer) for layer in network]
    assert kinds.count(SharedBatchNorm) == 2 and kinds.count(SharedDropout) == 1
    return learn(network, images[rank::2])


@pytest.mark.parametrize("num", [6, 7])
def test_two_parts_of_a_batch_give_the_gradient_and_statistics_of_the_whole(tmp_path, num):
    images = torch.randn(num, 3, 8, 8)
    first, second = in_two_processes(learn_part, tmp_path, images)
    whole = learn(small_network(), images)
    assert whole.keys() == first.keys()
    for key, value in whole.items():
        if key.endswith(".grad"):  # of a sum over stacks, so the parts add up
            torch.testing.assert_close(first[key] + second[key], value, rtol=1e-4, atol=1e-5)
        else:
            torch.testing.assert_close(first[key], value, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(second[key], value, rtol=1e-5, atol=1e-6)


def test_sharing_keeps_weights_and_their_names():
    network = small_network().eval()
    images, state = torch.randn(2, 3, 8, 8), network.state_dict()
    before = network(images)
    share_batches(network, "cpu")
    assert list(network.state_dict()) == list(state)
    torch.testing.assert_close(network(images), before)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("num_stacks", range(3, 26))
def test_shares_make_the_same_batches_and_no_stack_counts_twice(world, num_stacks):
    batch_size, part = 6, 6 // world
    whole = [set(range(i, min(i + batch_size, num_stacks))) for i in range(0, num_stacks, 6)]
    for every_batch_whole in (False, True):
        shares = [
            list(share_of(rank, world, num_stacks, batch_size, every_batch_whole))
            for rank in range(world)
        ]
        batches = [[s[i : i + part] for i in range(0, len(s), part)] for s in shares]
        together = [
            [place for own in batches if number < len(own) for place in own[number]]
            for number in range(max(map(len, batches)))
        ]
        counts = Counter(place for batch in together for place in batch)
        real = [{place for place in batch if place < num_stacks} for batch in together]
        assert real == whole and all(counts[place] == 1 for place in range(num_stacks))
        if every_batch_whole:
            assert len({len(own) for own in batches}) == 1
        else:
            assert max(counts) == num_stacks - 1


# Written at once: what two processes print piece by piece (PYTHONUNBUFFERED) would mix.
LOOK = """
import os
os.write(1, f"{os.environ['LOCAL_RANK']} {os.environ['MASTER_PORT']}\\n".encode())
"""


def test_others_are_started_and_leave_no_trace(monkeypatch, capfd):
    monkeypatch.setenv("MASTER_ADDR", "somewhere")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    before, threads = dict(os.environ), torch.get_num_threads()
    with processes(3, [sys.executable, "-c", LOOK]):
        port = os.environ["MASTER_PORT"]
        assert os.environ["LOCAL_RANK"] == "0"
    assert sorted(capfd.readouterr().out.splitlines()) == [f"1 {port}", f"2 {port}"]
    assert dict(os.environ) == before
    assert torch.get_num_threads() == threads


def test_others_end_with_this_one_and_their_failure_is_told(tmp_path):
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError), processes(2, ["sleep", "1000"]):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="of trainer=ddp failed"), processes(2, ["false"]):
        pass
    assert dict(os.environ) == before


def test_nothing_is_started_where_others_are_there(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with processes(2, ["no such command"]):
        pass


@pytest.fixture
def curves(demo_cache, tmp_path):
    """Give a function that trains a run and reads its curves and its metrics."""

    def train(name, *arguments):
        run_dir = tmp_path / name
        done = subprocess.run(
            [sys.executable, "train.py", "data.max_clips_per_class=2", "loader.image_px=64",
             "model.pretrained=false", "interval=15", "logger=csv", "trainer.max_epochs=3",
             "model.backbone=mobilenetv3_small_050", "loader.num_workers=1",
             f"paths.cache={demo_cache.directory.parents[1]}", f"hydra.run.dir={run_dir}",
             *arguments],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        with open(run_dir / "curves" / "metrics.csv") as file:
            rows = [row for row in csv.DictReader(file) if row["epoch"]]
        last = torch.load(run_dir / "last.ckpt", weights_only=True)["state_dict"]
        return rows, last, done.stdout

    return train


@pytest.mark.parametrize(
    "arguments",
    [
        # the seed's recipe as it stands: batch norm, dropout and augmentation are on
        ["loader.batch_size=4", "trainer=cpu"],
        # parts of 3 and 2 stacks, more than one group of rates, weights, averaged weights
        [
            "loader.batch_size=10",
            "data.max_clips_per_class=1",
            "callbacks=ema",
            "loss.label_smoothing=0.1",
            "model.freeze_epochs=1",
            "optimizer=adamw",
            "schedule=onecycle",
        ],
    ],
)
def test_two_processes_give_the_curves_of_one(curves, arguments):
    one, weights_of_one, _ = curves("one", *arguments, "trainer=cpu")
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    two, weights_of_two, said = curves(
        "two", *(a for a in arguments if not a.startswith("trainer=")), *ddp
    )
    assert len(one) == len(two) == 6
    for row, other in zip(one, two, strict=True):
        assert {k for k, v in row.items() if v} == {k for k, v in other.items() if v}
        for key, value in row.items():
            if value:
                assert float(other[key]) == pytest.approx(float(value), rel=1e-3, abs=1e-4), key
    assert said.count("best epoch") == said.count("epoch   3 of 3") == 1
    for key, value in weights_of_one.items():
        torch.testing.assert_close(weights_of_two[key], value, rtol=1e-2, atol=1e-3)


def test_a_batch_that_cannot_be_shared_is_refused(demo_cache):
    from unittest.mock import Mock

    from emotion.data.augmentation import Augmentation
    from emotion.data.datamodule import StackDataModule

    datamodule = StackDataModule(
        demo_cache,
        15,
        Augmentation(),
        batch_size=5,
        labels=demo_cache.labels,
        pattern=demo_cache.scheme.pattern,
    )
    datamodule.setup()
    datamodule.trainer = Mock(world_size=2, global_rank=0)
    with pytest.raises(UserError, match=r"2 processes can't share loader\.batch_size=5"):
        datamodule.train_dataloader()
