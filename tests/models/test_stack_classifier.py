import time

import pytest
import timm
import torch
from safetensors.torch import save_file

from emotion.errors import UserError
from emotion.models.stack_classifier import (
    HUB_TIMEOUT_S,
    StackClassifier,
    adapt_stem,
    hub_answers,
    load_pretrained,
    num_parameters,
)

SMALL = "mobilenetv3_small_050"  # the same design as the large one, quick to build


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """A hub that refuses every connection, and an empty local cache."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hub_answers.cache_clear()
    yield
    hub_answers.cache_clear()


def rgb_weights(path, backbone=SMALL):
    """Weights of a backbone over colours, as a hub would give them; returns its state dict."""
    torch.manual_seed(1)
    weights = timm.create_model(backbone, pretrained=False).state_dict()
    save_file(weights, path)
    return weights


@pytest.mark.parametrize(
    ("backbone", "parameters"),
    [
        ("mobilenetv3_large_100", 3_468_709),
        ("tf_efficientnetv2_s", 20_839_165),
        ("tf_efficientnetv2_m", 53_520_033),
    ],
)
def test_parameter_counts_are_the_seeds(backbone, parameters):
    assert num_parameters(StackClassifier(backbone, num_images=18, num_classes=5)) == parameters


@pytest.mark.parametrize("num_images", [1, 3, 6, 18])
def test_logits_for_any_number_of_images(num_images):
    network = StackClassifier(SMALL, num_images, num_classes=4).eval()
    assert network(torch.rand(2, num_images, 64, 64)).shape == (2, 4)


def test_unknown_backbone_is_named():
    with pytest.raises(UserError, match="mobilenetv9"):
        StackClassifier("mobilenetv9", 6, 5)


def test_mean_stem_repeats_the_mean_kernel():
    kernel = torch.rand(4, 3, 5, 5)
    adapted = adapt_stem(kernel, 18, "mean")
    assert adapted.shape == (4, 18, 5, 5)
    red, green, blue = kernel.unbind(dim=1)
    for image in range(18):
        torch.testing.assert_close(adapted[:, image], (red + green + blue) / 3)


@pytest.mark.parametrize("num_images", [6, 9, 18])
def test_balanced_stem_answers_a_still_stack_as_the_gray_picture(num_images):
    kernel = torch.randn(4, 3, 3, 3)
    gray = torch.rand(1, 1, 16, 16)
    picture = torch.nn.functional.conv2d(gray.expand(1, 3, 16, 16), kernel)
    stack = torch.nn.functional.conv2d(
        gray.expand(1, num_images, 16, 16), adapt_stem(kernel, num_images, "balanced")
    )
    torch.testing.assert_close(stack, picture, rtol=1e-4, atol=1e-4)


def test_unknown_stem_is_named():
    with pytest.raises(UserError, match=r"model\.stem=median.*mean, balanced"):
        adapt_stem(torch.rand(4, 3, 3, 3), 6, "median")


@pytest.mark.parametrize("stem", ["mean", "balanced"])
def test_weights_over_colours_load_from_a_file(tmp_path, stem):
    weights = rgb_weights(tmp_path / "weights.safetensors")
    network = StackClassifier(SMALL, 6, 5)
    loaded = load_pretrained(network, SMALL, str(tmp_path / "weights.safetensors"), stem)
    assert loaded.loaded and loaded.source.endswith("weights.safetensors")
    own = network.backbone.state_dict()
    torch.testing.assert_close(
        own["blocks.0.0.conv_pw.weight"], weights["blocks.0.0.conv_pw.weight"]
    )
    factor = 1 / 3 if stem == "mean" else 1 / 6
    expected = weights["conv_stem.weight"].sum(dim=1) * factor
    torch.testing.assert_close(own["conv_stem.weight"][:, 5], expected)


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


def test_a_head_is_taken_over_from_a_run_on_the_same_classes(tmp_path):
    trained = StackClassifier(SMALL, 1, 5)
    weights = {f"network.{key}": value for key, value in trained.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "best.ckpt")
    network = StackClassifier(SMALL, 6, 5, fusion="late")
    path = str(tmp_path / "best.ckpt")
    assert not torch.equal(network.head[1].weight, trained.head[1].weight)
    loaded = load_pretrained(network, SMALL, path, "mean", head=True)
    assert loaded.source.endswith("best.ckpt, head and all")
    stacks = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(network.eval()(stacks.expand(2, 6, 32, 32)), trained.eval()(stacks))
    with pytest.raises(UserError, match=r"pretrained_head=true.*best\.ckpt has no head of.*512"):
        load_pretrained(StackClassifier(SMALL, 6, 4), SMALL, path, "mean", head=True)
    torch.save(trained.backbone.state_dict(), tmp_path / "backbone.pth")
    with pytest.raises(UserError, match="has no head of"):
        load_pretrained(network, SMALL, str(tmp_path / "backbone.pth"), "mean", head=True)


def test_weights_of_another_backbone_are_refused(tmp_path):
    rgb_weights(tmp_path / "weights.safetensors", "mobilenetv3_small_075")
    network = StackClassifier(SMALL, 6, 5)
    with pytest.raises(UserError, match="not the weights of this backbone"):
        load_pretrained(network, SMALL, str(tmp_path / "weights.safetensors"), "mean")


def test_file_that_is_no_state_dict_is_refused(tmp_path):
    (tmp_path / "weights.pth").write_text("not weights")
    with pytest.raises(UserError, match="not a state dict"):
        load_pretrained(StackClassifier(SMALL, 6, 5), SMALL, str(tmp_path / "weights.pth"), "mean")


def test_missing_file_is_named():
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file"):
        load_pretrained(StackClassifier(SMALL, 6, 5), SMALL, "nowhere.pth", "mean")


def test_auto_falls_back_in_time_and_asks_the_hub_once(no_hub):
    network = StackClassifier(SMALL, 6, 5)
    start_s = time.monotonic()
    first = load_pretrained(network, SMALL, "auto", "mean")
    assert time.monotonic() - start_s < 2 * HUB_TIMEOUT_S
    assert not first.loaded and "does not answer" in first.source
    load_pretrained(network, SMALL, "auto", "mean")
    assert hub_answers.cache_info().misses == 1


def test_true_fails_where_auto_falls_back(no_hub):
    with pytest.raises(UserError, match="does not answer"):
        load_pretrained(StackClassifier(SMALL, 6, 5), SMALL, True, "mean")


def test_auto_takes_weights_from_the_local_cache(no_hub, tmp_path):
    repository = timm.get_pretrained_cfg(SMALL).hf_hub_id
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    weights = rgb_weights(snapshot / "model.safetensors")
    network = StackClassifier(SMALL, 6, 5)
    loaded = load_pretrained(network, SMALL, "auto", "mean")
    assert loaded.loaded and loaded.source == f"ImageNet, timm/{SMALL}"
    torch.testing.assert_close(network.backbone.state_dict()["bn1.weight"], weights["bn1.weight"])


def test_false_leaves_random_weights():
    network = StackClassifier(SMALL, 6, 5)
    before = network.backbone.conv_stem.weight.clone()
    assert not load_pretrained(network, SMALL, False, "mean").loaded
    torch.testing.assert_close(network.backbone.conv_stem.weight, before)


def late(num_images=4):
    torch.manual_seed(0)
    return StackClassifier(SMALL, num_images, 5, fusion="late").eval()


def test_late_fusion_averages_the_features_of_single_images():
    network, stacks = late(), torch.rand(2, 4, 64, 64)
    features = [network.backbone.forward_features(stacks[:, t : t + 1]) for t in range(4)]
    mean = sum(each.mean(dim=(2, 3)) for each in features) / 4
    torch.testing.assert_close(network(stacks), network.head(mean), rtol=1e-4, atol=1e-5)


def test_late_fusion_does_not_know_the_order_of_images():
    network, stacks = late(), torch.rand(2, 4, 64, 64)
    expected = network(stacks)
    torch.testing.assert_close(network(stacks[:, [2, 0, 3, 1]]), expected, rtol=1e-4, atol=1e-5)
    early = StackClassifier(SMALL, 4, 5).eval()
    assert not torch.allclose(early(stacks[:, [2, 0, 3, 1]]), early(stacks), rtol=1e-4, atol=1e-6)


def test_of_a_single_image_early_is_late():
    network, stacks = late(1), torch.rand(2, 1, 64, 64)
    early = StackClassifier(SMALL, 1, 5).eval()
    early.load_state_dict(network.state_dict())
    torch.testing.assert_close(network(stacks), early(stacks))


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_flips_answer_a_stack_and_its_mirror_image_alike(fusion: str):
    torch.manual_seed(0)
    plain = StackClassifier(SMALL, 3, 5, fusion=fusion).eval()
    both = StackClassifier(SMALL, 3, 5, fusion=fusion, flips=True).eval()
    both.load_state_dict(plain.state_dict())
    stacks = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        expected = (plain(stacks) + plain(stacks.flip(3))) / 2
        torch.testing.assert_close(both(stacks), expected)
        torch.testing.assert_close(both(stacks.flip(3)), expected)
        assert not torch.allclose(plain(stacks), expected)


def test_weights_over_colours_load_into_late_fusion(tmp_path):
    weights = rgb_weights(tmp_path / "weights.safetensors")
    network = late()
    load_pretrained(network, SMALL, str(tmp_path / "weights.safetensors"), "balanced")
    expected = weights["conv_stem.weight"].sum(dim=1, keepdim=True)  # a gray picture's response
    torch.testing.assert_close(network.backbone.conv_stem.weight.data, expected)


def test_landmarks_beside_a_backbone_are_no_parameters():
    alone, beside = (StackClassifier(SMALL, 6, 5, landmarks=given) for given in (False, True))
    assert num_parameters(beside) == num_parameters(alone)
    assert not load_pretrained(
        StackClassifier(None, 6, 5, landmarks=True), None, "auto", "mean"
    ).loaded
