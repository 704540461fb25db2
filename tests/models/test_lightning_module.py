"""The Lightning modules: losses computed by hand, training on small batches, checkpoints."""

import subprocess
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from emotion.errors import UserError
from emotion.models.face_classifier import FaceClassifier
from emotion.models.lightning_module import (
    DiscriminantModule,
    EmotionModule,
    normalized,
)
from emotion.models.stack_classifier import num_parameters

SMALL = "mobilenetv3_small_050"
ADAM = {"name": "Adam", "lr": 3e-3}


@pytest.fixture
def fit():
    """Return a function that trains a module on batches and returns the trainer."""

    def fit_module(module, batches, epochs=1, callbacks=(), **settings):
        trainer = pl.Trainer(
            max_epochs=epochs, logger=False, enable_checkpointing=False, accelerator="cpu",
            enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
            limit_val_batches=settings.pop("limit_val_batches", 0), num_sanity_val_steps=0,
            **settings,
        )  # fmt: skip
        loader = DataLoader(batches, batch_size=None)
        trainer.fit(module, loader, loader)
        return trainer

    return fit_module


def small_module(**settings):
    torch.manual_seed(0)
    settings = {"optimizer": ADAM, "schedule": {"name": "exponential", "lr_decay": 1.0}} | settings
    return EmotionModule(**{"backbone": SMALL, "num_images": 6, "labels": list("abc")} | settings)


def random_batches(num=2, size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randint(256, (size, 6, 32, 32), dtype=torch.uint8, generator=generator),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(num)
    ]


def test_default_hyperparameters_are_the_seed_projects(compose):
    cfg = compose("train")
    assert dict(cfg.optimizer) == {
        "name": "Adam", "lr": 1e-4, "backbone_lr": None, "weight_decay": 1e-5,
    }  # fmt: skip
    assert dict(cfg.schedule) == {"name": "exponential", "lr_decay": 0.985}
    assert dict(cfg.loss) == {"class_weights": None, "label_smoothing": 0.0, "mixup": 0.0}
    assert (cfg.model.freeze_epochs, cfg.model.compile) == (0, False)
    assert (cfg.loader.batch_size, cfg.trainer.max_epochs) == (24, 50)
    assert cfg.trainer.precision == "32-true" and cfg.trainer.accumulate_grad_batches == 1
    assert cfg.trainer.gradient_clip_val is None
    assert set(cfg.callbacks) == {"best", "last", "seeds", "lines"}
    head = [
        (type(layer).__name__, getattr(layer, "p", None)) for layer in small_module().network.head
    ]
    assert head == [
        ("Dropout", 0.6), ("Linear", None), ("ReLU", None), ("Dropout", 0.5), ("Linear", None),
    ]  # fmt: skip
    assert (small_module().network.head[1].out_features, cfg.model.hidden) == (512, 512)


def test_inputs_are_scaled_to_1_and_not_normalized_by_default():
    torch.manual_seed(0)
    module = EmotionModule(SMALL, 6, ["a", "b", "c"]).eval()
    stacks = torch.randint(256, (2, 6, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(module(stacks), module.network(stacks.float() / 255))


def test_channels_last_changes_only_rounding():
    torch.manual_seed(0)
    first = EmotionModule(SMALL, 6, ["a", "b"]).eval()
    last = EmotionModule(SMALL, 6, ["a", "b"], channels_last=True).eval()
    last.load_state_dict(first.state_dict())
    stacks = torch.randint(256, (2, 6, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(last(stacks), first(stacks), rtol=1e-3, atol=1e-5)
    assert last.network.backbone.conv_stem.weight.is_contiguous(memory_format=torch.channels_last)


def test_training_overfits_one_batch(fit):
    module = small_module(dropout=(0.0, 0.0))
    trainer = fit(module, random_batches(num=1), epochs=40)
    assert trainer.callback_metrics["train/loss"] < 0.1
    assert trainer.callback_metrics["train/accuracy"] == 1


def test_a_loss_that_is_not_finite_stops_training_at_its_step(fit):
    module = small_module(optimizer={"name": "SGD", "lr": 1e38})
    with pytest.raises(UserError, match=r"nan in step 2 of epoch 1, .* 1e\+38: .*optimizer\.lr"):
        fit(module, random_batches(num=3))


def test_loss_with_class_weights_and_label_smoothing():
    module = small_module(class_weights=[1.0, 2.0, 0.5], label_smoothing=0.3)
    logits, targets = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    weights = torch.tensor([1.0, 2.0, 0.5])
    log_p = logits - logits.exp().sum(dim=1, keepdim=True).log()
    soft = 0.7 * torch.eye(3)[targets] + 0.1
    expected = -(soft * weights * log_p).sum() / weights[targets].sum()
    torch.testing.assert_close(module.loss(logits, targets), expected)


def test_mixup_loss_is_the_cross_entropy_of_mixed_targets(fit):
    seen = {}

    class Recorder(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            torch.manual_seed(5)

        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            seen["loss"] = outputs["loss"].item()

    module = small_module(mixup=0.4, dropout=(0.0, 0.0), optimizer={"name": "SGD", "lr": 0.0})
    (batch,) = random_batches(num=1)
    fit(module, [batch], callbacks=[Recorder()])
    torch.manual_seed(5)
    share = torch.distributions.Beta(0.4, 0.4).sample().item()
    share, order = max(share, 1 - share), torch.randperm(6)
    assert 0.5 < share < 1 and order.tolist() != list(range(6))
    stacks = share * batch[0].float() + (1 - share) * batch[0][order].float()
    one_hot = torch.eye(3)[batch[1]]
    soft = share * one_hot + (1 - share) * one_hot[order]
    log_p = small_module(dropout=(0.0, 0.0)).train().network(stacks / 255).log_softmax(dim=1)
    assert seen["loss"] == pytest.approx(-(soft * log_p).sum(dim=1).mean().item(), rel=1e-4)


def test_freeze_epochs_keep_backbone_weights_and_statistics(fit):
    states = []

    class Recorder(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            parts = (module.network.backbone, module.network.head)
            states.append([{k: v.clone() for k, v in p.state_dict().items()} for p in parts])

    module = small_module(freeze_epochs=2)
    first = {k: v.clone() for k, v in module.network.backbone.state_dict().items()}
    fit(module, random_batches(), epochs=3, callbacks=[Recorder()], limit_val_batches=1)
    for backbone, _ in states[:2]:
        assert all(torch.equal(backbone[key], value) for key, value in first.items())
    assert not torch.equal(states[0][1]["1.weight"], states[1][1]["1.weight"])
    changed = [key for key, value in first.items() if not torch.equal(states[2][0][key], value)]
    assert {"conv_stem.weight", "bn1.running_mean", "blocks.0.0.conv_dw.weight"} <= set(changed)


@pytest.mark.slow
def test_compiling_keeps_parameter_names_and_logits(monkeypatch):
    import torch._dynamo

    module = small_module().eval()
    names, stacks = list(module.state_dict()), random_batches()[0][0]
    expected = module(stacks)
    module.network.compile(backend="aot_eager")
    torch.testing.assert_close(module(stacks), expected, rtol=1e-4, atol=1e-5)
    assert module.network._compiled_call_impl is not None
    assert list(module.state_dict()) == names
    torch._dynamo.reset()


def test_a_backbone_that_rejects_the_image_size_raises_before_training(fit):
    module = small_module(backbone="test_maxvit", image_px=50)
    with pytest.raises(UserError, match=r"model\.backbone=test_maxvit .* 50 px") as caught:
        fit(module, random_batches())
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_checkpoint_loads_without_hydra(tmp_path):
    module = EmotionModule(
        SMALL, 6, ["a", "b"], class_weights=[1.0, 2.0], optimizer=ADAM, schedule={"name": "cosine"}
    )
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    code = f"""
import sys
import torch
torch.load({str(tmp_path / "x.ckpt")!r}, weights_only=True)  # contains plain types only
from emotion.models.lightning_module import EmotionModule
module = EmotionModule.load_from_checkpoint({str(tmp_path / "x.ckpt")!r})
assert list(module.hparams.labels) == ["a", "b"] and module.hparams.num_images == 6
assert not [name for name in sys.modules if name.split(".")[0] in ("hydra", "omegaconf")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_normalized_stacks_have_mean_0_and_deviation_1():
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    stacks = images.double().numpy()
    assert torch.equal(normalized(images, "range"), images)
    expected = [(stack - stack.mean()) / (stack.std() + 1e-3) for stack in stacks]
    actual = normalized(images, "stack")
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        normalized(0.5 * images + 0.2, "stack"), actual, rtol=0.02, atol=0.02
    )
    assert torch.isfinite(normalized(torch.zeros(1, 3, 4, 5), "stack")).all()


def test_the_network_takes_normalized_stacks():
    module = small_module(normalize="stack").eval()
    stacks = random_batches()[0][0]
    expected = module.network(normalized(stacks.float() / 255, "stack"))
    torch.testing.assert_close(module(stacks), expected)


class Landmarks(pl.LightningDataModule):
    """Batches of random landmarks, the same for training and validation."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        landmarks = torch.randn(12, 6, 468, 3, generator=generator)
        targets = torch.arange(12) % 3
        self.batches = list(zip(landmarks.split(5), targets.split(5), strict=True))

    def train_dataloader(self):
        return DataLoader(self.batches, batch_size=None)

    def val_dataloader(self):
        return DataLoader(self.batches, batch_size=None)

    def evaluation_dataloader(self, split):
        assert split == "train"
        return DataLoader(self.batches, batch_size=None)


def test_landmarks_are_fitted_in_closed_form_and_evaluated_like_a_network(tmp_path):
    module, data = (
        DiscriminantModule("landmarks", 6, ["a", "b", "c"], components=5, shrinkage=0.5),
        Landmarks(),
    )
    best = ModelCheckpoint(tmp_path, "best", monitor="val/accuracy", mode="max")
    trainer = pl.Trainer(
        max_epochs=5, logger=False, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[best],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert trainer.current_epoch == 1  # whatever the trainer has
    direct = FaceClassifier("landmarks", 3)
    landmarks, targets = (torch.cat(each) for each in zip(*data.batches, strict=True))
    direct.fit(landmarks.numpy(), targets.numpy(), 5, 0.5)
    torch.testing.assert_close(module(landmarks), direct(landmarks))
    accuracy = (direct(landmarks).argmax(dim=1) == targets).float().mean()
    for phase in ("train", "val"):
        torch.testing.assert_close(trainer.callback_metrics[f"{phase}/accuracy"], accuracy)
        assert f"{phase}/loss" in trainer.callback_metrics
    loaded = DiscriminantModule.load_from_checkpoint(tmp_path / "best.ckpt")
    torch.testing.assert_close(loaded(landmarks), direct(landmarks))
    assert num_parameters(module) == 0
    assert module.example(2, 32).shape == (2, 6, 468, 3)
