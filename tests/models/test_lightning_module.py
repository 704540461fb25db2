import subprocess
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from emotion.errors import UserError
from emotion.models.lightning_module import EmotionModule, normalized

SMALL = "mobilenetv3_small_050"


ADAM = {"name": "Adam", "lr": 3e-3}


@pytest.fixture
def fit():
    """Give a function that trains a module on batches for some epochs; returns the trainer."""

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
    settings = {"optimizer": ADAM, "schedule": {"name": "constant"}} | settings
    return EmotionModule(SMALL, 6, ["a", "b", "c"], **settings)


def random_batches(num=2, size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randint(256, (size, 6, 32, 32), dtype=torch.uint8, generator=generator),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(num)
    ]


def test_recipe_is_the_seeds(compose):
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


def test_it_can_learn_by_heart(fit):
    module = small_module(dropout=(0.0, 0.0))
    trainer = fit(module, random_batches(num=1), epochs=40)
    assert trainer.callback_metrics["train/loss"] < 0.1
    assert trainer.callback_metrics["train/accuracy"] == 1


def test_loss_weighs_classes_and_smooths_labels_as_written():
    module = small_module(class_weights=[1.0, 2.0, 0.5], label_smoothing=0.3)
    logits, targets = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    weights = torch.tensor([1.0, 2.0, 0.5])
    log_p = logits - logits.exp().sum(dim=1, keepdim=True).log()
    soft = 0.7 * torch.eye(3)[targets] + 0.1
    expected = -(soft * weights * log_p).sum() / weights[targets].sum()
    torch.testing.assert_close(module.loss(logits, targets), expected)


def test_mixed_stacks_have_the_loss_of_their_mixed_targets(fit):
    seen = {}

    class Onlooker(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            torch.manual_seed(5)

        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            seen["loss"] = outputs["loss"].item()

    module = small_module(mixup=0.4, dropout=(0.0, 0.0), optimizer={"name": "SGD", "lr": 0.0})
    (batch,) = random_batches(num=1)
    fit(module, [batch], callbacks=[Onlooker()])
    torch.manual_seed(5)
    share = torch.distributions.Beta(0.4, 0.4).sample().item()
    share, order = max(share, 1 - share), torch.randperm(6)
    assert 0.5 < share < 1 and order.tolist() != list(range(6))
    stacks = share * batch[0].float() + (1 - share) * batch[0][order].float()
    one_hot = torch.eye(3)[batch[1]]
    soft = share * one_hot + (1 - share) * one_hot[order]
    log_p = small_module(dropout=(0.0, 0.0)).train().network(stacks / 255).log_softmax(dim=1)
    assert seen["loss"] == pytest.approx(-(soft * log_p).sum(dim=1).mean().item(), rel=1e-4)


def test_frozen_backbone_stays_to_the_last_statistic_and_learns_later(fit):
    states = []

    class Onlooker(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            parts = (module.network.backbone, module.network.head)
            states.append([{k: v.clone() for k, v in p.state_dict().items()} for p in parts])

    module = small_module(freeze_epochs=2)
    first = {k: v.clone() for k, v in module.network.backbone.state_dict().items()}
    fit(module, random_batches(), epochs=3, callbacks=[Onlooker()], limit_val_batches=1)
    for backbone, _ in states[:2]:
        assert all(torch.equal(backbone[key], value) for key, value in first.items())
    assert not torch.equal(states[0][1]["1.weight"], states[1][1]["1.weight"])
    changed = [key for key, value in first.items() if not torch.equal(states[2][0][key], value)]
    assert {"conv_stem.weight", "bn1.running_mean", "blocks.0.0.conv_dw.weight"} <= set(changed)


def test_compiling_leaves_names_and_numbers(monkeypatch):
    import torch._dynamo

    module = small_module().eval()
    names, stacks = list(module.state_dict()), random_batches()[0][0]
    expected = module(stacks)
    module.network.compile(backend="aot_eager")
    torch.testing.assert_close(module(stacks), expected, rtol=1e-4, atol=1e-5)
    assert module.network._compiled_call_impl is not None
    assert list(module.state_dict()) == names
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing": 1.5}, r"loss\.label_smoothing=1\.5"),
        ({"mixup": -1}, r"loss\.mixup=-1"),
        ({"freeze_epochs": -1}, r"model\.freeze_epochs=-1"),
        ({"normalize": "mean"}, r"model\.normalize=mean: it is one of range, stack, difference"),
        ({"fusion": "slow"}, r"model\.fusion=slow: it is one of early, late"),
    ],
)
def test_values_out_of_range_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        small_module(**settings)


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
torch.load({str(tmp_path / "x.ckpt")!r}, weights_only=True)  # holds no objects but plain ones
from emotion.models.lightning_module import EmotionModule
module = EmotionModule.load_from_checkpoint({str(tmp_path / "x.ckpt")!r})
assert list(module.hparams.labels) == ["a", "b"] and module.hparams.num_images == 6
assert not [name for name in sys.modules if name.split(".")[0] in ("hydra", "omegaconf")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_gray_levels_are_normalised_as_by_hand():
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    stacks = images.double().numpy()
    assert torch.equal(normalized(images, "range"), images)
    moving = stacks - stacks.mean(axis=1, keepdims=True)
    for kind, taken in (("stack", stacks), ("difference", moving)):
        expected = [(stack - stack.mean()) / (stack.std() + 1e-3) for stack in taken]
        actual = normalized(images, kind).numpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    brighter = normalized(0.5 * images + 0.2, "stack")
    torch.testing.assert_close(brighter, normalized(images, "stack"), rtol=0.02, atol=0.02)
    still = images[:, :1].expand(-1, 3, -1, -1)
    assert normalized(still, "difference").abs().max() < 1e-3  # a face that does not move
    assert torch.isfinite(normalized(torch.zeros(1, 3, 4, 5), "stack")).all()


@pytest.mark.parametrize("normalize", ["stack", "difference"])
def test_the_network_sees_what_was_normalised(normalize):
    module = small_module(normalize=normalize).eval()
    stacks = random_batches()[0][0]
    expected = module.network(normalized(stacks.float() / 255, normalize))
    torch.testing.assert_close(module(stacks), expected)


def with_landmarks(batches):
    generator = torch.Generator().manual_seed(7)
    return [
        ((stacks, torch.randn(len(stacks), 6, 468, 3, generator=generator)), targets)
        for stacks, targets in batches
    ]


def fitted(module, batches):
    """Fit a module's classifier of landmarks on batches."""
    landmarks = torch.cat([batch[0][1] for batch in batches]).numpy()
    module.network.geometry.fit(landmarks, torch.cat([batch[1] for batch in batches]).numpy())
    return module


def test_beside_landmarks_the_images_learn_alone(fit):
    """The same weights come of it as without landmarks; the log-probabilities are added after."""
    batches = random_batches()
    both = with_landmarks(batches)
    alone, beside = small_module(), small_module(landmarks=True)
    beside.network.load_state_dict(alone.network.state_dict(), strict=False)
    fitted(beside, both)
    discriminant = {k: v.clone() for k, v in beside.network.geometry.state_dict().items()}
    for module, data in ((alone, batches), (beside, both)):
        torch.manual_seed(5)  # of dropout
        fit(module, data, epochs=2)
    for key, value in alone.network.state_dict().items():
        assert torch.equal(beside.network.state_dict()[key], value), key
    for key, value in discriminant.items():
        assert torch.equal(beside.network.geometry.state_dict()[key], value), key
    (stacks, landmarks), _ = both[0]
    alone.eval(), beside.eval()
    expected = alone(stacks).softmax(1) * beside.network.geometry(landmarks).softmax(1)
    torch.testing.assert_close(
        beside(stacks, landmarks).softmax(1), expected / expected.sum(1, keepdim=True)
    )
    assert all(p.grad is None for p in beside.network.geometry.parameters())


def test_landmarks_alone_are_a_model(fit):
    batches = with_landmarks(random_batches())
    module = EmotionModule(
        None, 6, ["a", "b", "c"], landmarks=True, optimizer=ADAM, schedule={"name": "constant"}
    )
    fitted(module, batches)
    before = module.network.geometry.weight.clone()
    fit(module, batches, limit_val_batches=1)
    assert torch.equal(module.network.geometry.weight, before)
    assert module.network.geometry.scale != 1  # all that gradients change
    assert module(*module.example(2, 32)).shape == (2, 3)


def test_without_backbone_and_landmarks_nothing_is_left():
    with pytest.raises(UserError, match=r"model\.backbone=null leaves nothing"):
        EmotionModule(None, 6, ["a", "b"])
    with pytest.raises(UserError, match=r"loss\.mixup=0\.2: landmarks can't be mixed"):
        EmotionModule(None, 6, ["a", "b"], landmarks=True, mixup=0.2)


def test_a_checkpoint_of_an_older_version_loads(tmp_path):
    module = small_module()
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    for key in ("fusion", "normalize", "landmarks"):
        del checkpoint["hyper_parameters"][key]
    torch.save(checkpoint, tmp_path / "x.ckpt")
    loaded = EmotionModule.load_from_checkpoint(tmp_path / "x.ckpt").eval()
    stacks = random_batches()[0][0]
    assert torch.equal(loaded(stacks), module.eval()(stacks))
