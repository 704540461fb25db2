"""Stack classifiers: any timm backbone, any number of images, early and late fusion."""

import pytest
import torch

from emotion.errors import UserError
from emotion.models.stack_classifier import StackClassifier, num_parameters

SMALL = "mobilenetv3_small_050"  # the architecture of the large one, fast to build


@pytest.mark.parametrize(
    ("backbone", "parameters"),
    [
        ("mobilenetv3_large_100", 3_468_709),
        ("tf_efficientnetv2_s", 20_839_165),
        pytest.param("tf_efficientnetv2_m", 53_520_033, marks=pytest.mark.slow),
    ],
)
def test_parameter_counts_are_the_seed_projects(backbone, parameters):
    with torch.device("meta"):  # skips random weights
        network = StackClassifier(backbone, num_images=18, num_classes=5)
    assert num_parameters(network) == parameters


@pytest.mark.parametrize("num_images", [1, 3, 18])
def test_logits_for_any_number_of_images(num_images):
    network = StackClassifier(SMALL, num_images, num_classes=4).eval()
    assert network(torch.rand(2, num_images, 64, 64)).shape == (2, 4)


@pytest.mark.parametrize(
    ("backbone", "image_px"),
    [
        ("test_vit", 96),  # a patch embedding, built for one image size
        ("test_vit", None),
        ("test_convnext", 64),
        ("test_resnet", 32),
        ("test_efficientnet", 32),
        ("mobilenetv4_conv_small_050", 32),  # also an instance of the class MobileNetV3
        pytest.param("vit_tiny_patch16_224", 64, marks=pytest.mark.slow),
        pytest.param("swin_tiny_patch4_window7_224", 112, marks=pytest.mark.slow),
        pytest.param("vgg11", 64, marks=pytest.mark.slow),  # pools to 4096 pre-logits
    ],
)
@pytest.mark.parametrize("fusion", ["early", "late"])
def test_any_backbone_pools_and_has_gradients_in_its_first_layer(backbone, image_px, fusion):
    network = StackClassifier(backbone, 4, 5, image_px=image_px, fusion=fusion)
    size = image_px or 160  # the default of the test networks
    logits = network(torch.rand(2, 4, size, size))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert next(network.backbone.parameters()).grad is not None


@pytest.mark.parametrize(
    ("backbone", "image_px"),
    [("mobilenetv9", 64), ("test_vit", -5)],
)
def test_a_backbone_that_cannot_be_built_raises(backbone, image_px):
    with pytest.raises(UserError, match=rf"model\.backbone.*{backbone}") as caught:
        StackClassifier(backbone, 6, 5, image_px=image_px)
    assert "\n" not in str(caught.value)


def late(num_images=4):
    torch.manual_seed(0)
    return StackClassifier(SMALL, num_images, 5, fusion="late").eval()


def test_the_head_takes_pooled_features_before_mobilenets_last_layer():
    network, stacks = StackClassifier(SMALL, 4, 5).eval(), torch.rand(2, 4, 64, 64)
    features = network.backbone.forward_features(stacks).mean(dim=(2, 3))
    torch.testing.assert_close(network(stacks), network.head(features), rtol=1e-4, atol=1e-5)


def test_late_fusion_averages_the_features_of_single_images():
    network, stacks = late(), torch.rand(2, 4, 64, 64)
    mean = sum(network.backbone(stacks[:, t : t + 1]) for t in range(4)) / 4
    torch.testing.assert_close(network(stacks), network.head(mean), rtol=1e-4, atol=1e-5)


def test_late_fusion_ignores_the_order_of_images():
    network, stacks = late(), torch.rand(2, 4, 64, 64)
    expected = network(stacks)
    torch.testing.assert_close(network(stacks[:, [2, 0, 3, 1]]), expected, rtol=1e-4, atol=1e-5)
    early = StackClassifier(SMALL, 4, 5).eval()
    assert not torch.allclose(early(stacks[:, [2, 0, 3, 1]]), early(stacks), rtol=1e-4, atol=1e-6)


def test_early_and_late_fusion_are_equal_for_one_image():
    network, stacks = late(1), torch.rand(2, 1, 64, 64)
    early = StackClassifier(SMALL, 1, 5).eval()
    early.load_state_dict(network.state_dict())
    torch.testing.assert_close(network(stacks), early(stacks))
