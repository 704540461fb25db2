"""Averaged weights, seeds, stopping and progress lines, compared with direct computation."""

import io
import re

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.progress import Progress
from torch.utils.data import DataLoader

from emotion.models.lightning_module import EmotionModule
from emotion.training.callbacks import EarlyStop, Ema, EpochLines, SeededEpochs
from emotion.training.checkpoint import RunCheckpoint

SMALL = "mobilenetv3_small_050"


def module_and_batches():
    torch.manual_seed(0)
    module = EmotionModule(
        SMALL, 6, ["a", "b", "c"], optimizer={"name": "Adam", "lr": 1e-2},
        schedule={"name": "exponential", "lr_decay": 1.0},
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    batches = [
        (
            torch.randint(256, (6, 6, 32, 32), dtype=torch.uint8, generator=generator),
            torch.tensor([0, 1, 2] * 2),
        )
        for _ in range(4)
    ]
    return module, batches


def fit(module, batches, *callbacks, epochs=2):
    trainer = pl.Trainer(
        max_epochs=epochs, logger=False, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, RunCheckpoint) for c in callbacks),
    )  # fmt: skip
    loader = DataLoader(batches, batch_size=None)
    trainer.fit(module, loader, loader)
    return trainer


class WeightRecorder(pl.Callback):
    """Records the weights after each step, and those that are validated."""

    def __init__(self):
        self.trained, self.validated = [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.trained.append({k: v.clone() for k, v in module.state_dict().items()})

    def on_validation_batch_start(self, trainer, module, *_):
        self.validated.append({k: v.clone() for k, v in module.state_dict().items()})


def test_validation_and_the_best_checkpoint_have_the_averaged_weights(tmp_path):
    recorder = WeightRecorder()
    best = RunCheckpoint(
        dirpath=tmp_path, filename="best", monitor="val/loss", save_weights_only=True
    )
    last = RunCheckpoint(dirpath=tmp_path, filename="last")
    fit(*module_and_batches(), Ema(decay=0.5), recorder, best, last)
    average, expected = dict(recorder.trained[0]), []
    for step, weights in enumerate(recorder.trained[1:], start=1):
        kept = min(0.5, (1 + step) / (10 + step))
        for key, value in weights.items():
            if value.is_floating_point():
                average[key] = kept * average[key] + (1 - kept) * value
        if step % 4 == 3:
            expected.append(dict(average))
    for epoch, averaged in enumerate(expected):
        validated = recorder.validated[4 * epoch]
        for key, value in averaged.items():
            if value.is_floating_point():
                torch.testing.assert_close(validated[key], value, rtol=1e-4, atol=1e-5)
        assert not torch.equal(
            validated["network.head.1.weight"],
            recorder.trained[4 * epoch + 3]["network.head.1.weight"],
        )
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert not {"current_model_state", "averaging_state", "optimizer_states"} & set(kept)
    for key, value in recorder.validated[4 * kept["epoch"]].items():
        assert torch.equal(kept["state_dict"][key], value), key
    loaded = EmotionModule.load_from_checkpoint(tmp_path / "best.ckpt")
    assert torch.equal(loaded.network.head[1].weight, kept["state_dict"]["network.head.1.weight"])


def test_without_averaging_the_best_checkpoint_has_the_trained_weights(tmp_path):
    recorder = WeightRecorder()
    best = RunCheckpoint(
        dirpath=tmp_path, filename="best", monitor="val/loss", save_weights_only=True
    )
    fit(*module_and_batches(), recorder, best)
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)
    for key, value in recorder.trained[4 * kept["epoch"] + 3].items():
        assert torch.equal(kept["state_dict"][key], value), key


def test_random_numbers_depend_on_seed_and_epoch_alone():
    drawn = {}

    class Draw(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            drawn.setdefault((self.run, trainer.current_epoch), []).append(torch.rand(1).item())

    for run, seed, before in (("a", 1, 0), ("b", 1, 3), ("c", 2, 0)):
        module, batches = module_and_batches()
        torch.rand(before)
        draw = Draw()
        draw.run = run
        fit(module, batches, SeededEpochs(seed), draw)
    assert drawn["a", 0] == drawn["b", 0] and drawn["a", 1] == drawn["b", 1]
    assert len({tuple(values) for values in drawn.values()}) == 4
    assert len(drawn) == 6


def test_training_stops_when_validation_no_longer_improves(tmp_path):
    module, batches = module_and_batches()
    module.validation_step = lambda *_: module.log("val/accuracy", 0.5)
    stop = EarlyStop(monitor="val/accuracy", mode="max", patience=2)
    trainer = fit(module, batches, stop, epochs=9)
    assert trainer.current_epoch == 3  # the first, and two without improvement
    # a run that resumes after its last epoch stops at once
    again, _ = module_and_batches()
    again_stop = EarlyStop(monitor="val/accuracy", mode="max", patience=2)
    again_stop.load_state_dict(stop.state_dict())
    assert fit(again, batches, again_stop, epochs=9).current_epoch == 0


def test_each_epoch_logs_a_line_with_the_end_of_training(caplog, capfd):
    module, batches = module_and_batches()
    with caplog.at_level("INFO", logger="emotion.training.callbacks"):
        fit(module, batches, EpochLines(), epochs=3)
    lines = [r.getMessage() for r in caplog.records if r.name == "emotion.training.callbacks"]
    assert [line.split(":")[0] for line in lines] == [f"epoch   {n} of 3" for n in (1, 2, 3)]
    assert [bool(re.search(r"at \d\d:\d\d$", line)) for line in lines] == [True, True, False]
    assert capfd.readouterr().err == ""  # no bar without a terminal


def test_in_a_terminal_a_bar_counts_train_and_validation_batches(monkeypatch):
    bars = []

    def bar(transient):
        assert transient
        bars.append(Progress(console=Console(file=io.StringIO(), force_terminal=True)))
        return bars[-1]

    monkeypatch.setattr("emotion.training.callbacks.terminal_bar", bar)
    fit(*module_and_batches(), EpochLines(), epochs=2)
    assert [(bar.tasks[0].completed, bar.tasks[0].total) for bar in bars] == [(8, 8)] * 2
    assert all(bar.finished and not bar.live.is_started for bar in bars)
