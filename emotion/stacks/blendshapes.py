"""Blendshapes: how far each of 52 movements of a face has gone, 0 to 1.

MediaPipe's names, after Apple's ARKit; left and right are the person's own. `_neutral` is unused.
"""

import numpy as np

BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft",
    "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft",
    "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight",
    "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft",
    "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen",
    "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower",
    "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
NOISE_SCORE = 0.02  # scores below it are noise; added before a logarithm


def stand_out(blendshapes: np.ndarray, typical: np.ndarray, number: int = 3) -> list[str]:
    """Name the movements that a face makes most of all, compared with other faces.

    Args:
        blendshapes: (52,) float, mean over the images of a stack.
        typical: (52,) float, mean over many stacks.
        number: of names, without left or right, the strongest first.
    """
    order = np.argsort(typical - blendshapes, kind="stable")
    names = (BLENDSHAPES[i].removesuffix("Left").removesuffix("Right") for i in order)
    return list(dict.fromkeys(names))[:number]
