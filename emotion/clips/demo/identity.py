"""Random people for the demo clips: face shape, skin, hair and glasses.

Coordinates are *face units*: the origin lies between the eyes, x points right and y down in the
image, the crown is at y = -1 and the chin at y = 1. Colors are BGR, 0 to 255.
"""

import numpy as np

# Skin from light to dark: Monk Skin Tone scale (Monk, 2023), tones 1 to 9. Tone 10 is excluded: in
# weak light its brows and folds would disappear in the noise.
SKIN_TONES = np.array(
    [
        *[(228, 237, 246), (219, 231, 243), (208, 234, 247), (186, 218, 234), (150, 189, 215)],
        *[(86, 126, 160), (67, 92, 130), (52, 65, 96), (42, 49, 58)],
    ]
)
# Black, dark brown, gray; then, with light skin only, brown, auburn, blond.
HAIR_COLORS = np.array(
    [(22, 20, 24), (28, 34, 44), (140, 142, 146), (34, 52, 78), (44, 70, 120), (96, 140, 178)]
)
IRIS_COLORS = np.array([(30, 45, 70), (25, 60, 90), (70, 100, 80), (140, 110, 70)])


class Identity:
    """A random person: lengths in face units, weights from 0 to 1.

    Resting brows and mouths differ, so that one frame does not always separate expression from
    face shape. Brows rest at most 0.22 above the eyes: FaceMesh loses brows that rise above 0.3.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        """Sample all features independently of each other and of any label."""
        u = rng.uniform
        self.head_width = u(0.66, 0.77)  # half the head at the eyes
        self.jaw_taper = u(0.12, 0.34)  # relative loss of width at the chin
        self.squareness = u(2.0, 2.5)  # exponent of the outline; 2 is an ellipse
        self.eye_x, self.eye_y = u(0.28, 0.34), u(-0.05, 0.03)
        self.eye_width, self.eye_open = u(0.12, 0.155), u(0.06, 0.08)
        self.eye_slant, self.iris = u(-0.02, 0.03), u(0.058, 0.068)
        self.brow_y, self.brow_length = u(-0.22, -0.18), u(0.3, 0.37)
        self.brow_thickness, self.brow_arch = u(0.03, 0.06), u(0.02, 0.06)
        self.brow_tilt = u(-0.035, 0.035)
        self.nose_y, self.nose_width, self.nose_height = u(0.33, 0.4), u(0.11, 0.17), u(0.2, 0.34)
        self.mouth_y, self.mouth_width = u(0.59, 0.65), u(0.21, 0.28)
        self.mouth_curve = u(-0.02, 0.02)
        self.upper_lip, self.lower_lip = u(0.04, 0.085), u(0.06, 0.1)
        self.age = u(0, 0.5)  # weight of the folds of a resting face
        self.hairline, self.hair_slant = u(-0.85, -0.55), u(-0.25, 0.25)
        self.hair_volume, self.curl = u(0.02, 0.16), u(0, 1) ** 2
        self.hair_end = rng.choice([u(-0.4, 0.1), u(0.5, 1.4)])  # short or long
        if rng.random() < 0.08:  # bald
            self.hairline, self.hair_end, self.hair_volume, self.curl = -2, -2, 0.02, 0
        bearded = rng.random() < 0.3
        self.beard, self.moustache = bearded * u(0.1, 0.7), bearded * u(0, 0.7)
        self.glasses = rng.random() < 0.12
        tone = u(0, len(SKIN_TONES) - 1)
        skin = [np.interp(tone, range(len(SKIN_TONES)), channel) for channel in SKIN_TONES.T]
        warmth = u((0.9, 0.91, 1), (0.97, 0.97, 1.04))  # the swatches are flat, skin is not
        self.skin = np.array(skin) * warmth * u(0.87, 0.97)
        self.hair = HAIR_COLORS[rng.integers(6 if tone < 5 else 3)] * u(0.8, 1.2)
        self.brow = np.minimum(self.hair * 0.6, self.skin * 0.45)
        self.iris_color = IRIS_COLORS[rng.integers(len(IRIS_COLORS))]

    def radius(self, x: np.ndarray, y: np.ndarray, grow: float = 0.0) -> np.ndarray:
        """Return the relative distance from the origin: 0 there, 1 on the outline of the head."""
        width = (self.head_width + grow) * (1 - self.jaw_taper * np.clip(y, 0, 1) ** 2)
        power = self.squareness
        return (np.abs(x / width) ** power + np.abs(y / (1 + grow)) ** power) ** (1 / power)
