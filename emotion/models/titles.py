"""Names of models for people."""

TITLES = {
    "mobilenetv3_large_100": "MobileNetV3-Large",
    "tf_efficientnetv2_s": "EfficientNetV2-S",
    "tf_efficientnetv2_m": "EfficientNetV2-M",
    "tf_efficientnet_lite0": "EfficientNet-Lite0",
    "resnet10t": "ResNet-10-T",
    # discriminants, by their inputs
    "landmarks": "Landmarks",
    "blendshapes": "Blendshapes",
    "face": "Landmarks and blendshapes",
}


def model_title(backbone: str | None, inputs: str = "landmarks") -> str:
    """Return the title of a timm network, or of the discriminant of `inputs`, which has none.

    >>> model_title("mobilenetv3_large_100"), model_title("resnet18"), model_title(None, "face")
    ('MobileNetV3-Large', 'resnet18', 'Landmarks and blendshapes')
    """
    name = inputs if backbone is None else backbone
    return TITLES.get(name, name)
