"""Names of models for people."""

TITLES = {
    "mobilenetv3_large_100": "MobileNetV3-Large",
    "tf_efficientnetv2_s": "EfficientNetV2-S",
    "tf_efficientnetv2_m": "EfficientNetV2-M",
    "resnet10t": "ResNet-10-T",
}


def model_title(backbone: str | None) -> str:
    """Return the title of a timm network, or of the landmark classifier, which has no backbone.

    >>> model_title("mobilenetv3_large_100"), model_title("resnet18"), model_title(None)
    ('MobileNetV3-Large', 'resnet18', 'Landmarks')
    """
    return "Landmarks" if backbone is None else TITLES.get(backbone, backbone)
