"""Render demo clips: drawn faces that make the five expressions, so that all runs with no data.

Stands before the way of the data: it writes the clips that ``emotion/clips/naming.py`` then finds.
Nothing here is learned or copied from a person. A face is drawn with OpenCV and moved by action
units of the Facial Action Coding System (Ekman & Friesen, *Facial Action Coding System*, 1978). An
emotion is its EMFACS prototype (Ekman & Friesen, *EMFACS*, 1983), which rises, stays and falls. All
else (who it is, light, background, head motion, blinks, speech) comes from the same
distributions for every label, so that only the expression tells the label.

Coordinates are *face units*: the origin lies between the eyes, x points right and y down in the
image, the crown is at y = -1 and the chin at y = 1. Colours are BGR, 0 to 255. Places and reaches
in the drawing methods were set by eye on contact sheets, and checked by the landmarks of FaceMesh.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from joblib import Parallel, delayed

from emotion.errors import UserError
from emotion.files import unfinished

# FACS numbers of the units that the drawing knows; 45 is the blink.
ACTION_UNITS = (1, 2, 4, 5, 6, 7, 12, 15, 23, 25, 26, 45)

# EMFACS prototypes. A jaw that drops (26) parts the lips, which FACS scores as 25 beside it.
PROTOTYPES: dict[str, tuple[int, ...]] = {
    "Anger": (4, 5, 7, 23),
    "Happy": (6, 12),
    "Neutral": (),
    "Sad": (1, 4, 15),
    "Shock": (1, 2, 5, 25, 26),
}

# Skin from light to dark: Monk Skin Tone scale (Monk, 2023), tones 1 to 9. Tone 10 is left out: in
# weak light its brows and folds would fall below the noise.
SKIN_TONES = np.array(
    [
        (228, 237, 246),
        (219, 231, 243),
        (208, 234, 247),
        (186, 218, 234),
        (150, 189, 215),
        (86, 126, 160),
        (67, 92, 130),
        (52, 65, 96),
        (42, 49, 58),
    ]
)
# Black, dark brown, gray, and from here on only with light skin: brown, auburn, blond.
HAIR_COLOURS = np.array(
    [(22, 20, 24), (28, 34, 44), (140, 142, 146), (34, 52, 78), (44, 70, 120), (96, 140, 178)]
)
IRIS_COLOURS = np.array([(30, 45, 70), (25, 60, 90), (70, 100, 80), (140, 110, 70)])
BLACK, WHITE = np.array([12, 12, 12]), np.array([250, 250, 250])
SCLERA, TEETH = np.array([186, 189, 194]), np.array([185, 196, 202])
THROAT, TONGUE = np.array([30, 22, 52]), np.array([80, 72, 140])
FRAME = np.array([60, 64, 70])  # of glasses; black ones FaceMesh would take for brows

HALF_CANVAS = 1.45  # face units from the middle of the canvas to its border: room for hair and ears
CANVAS_OVER_FRAME = 1.15  # makes the canvas no coarser than the largest face in a frame
SHIFT = 4  # OpenCV draws at 1/16 pixel; at whole pixels slow motion would jump
SHADE_ONE = 160  # the uint8 level of shade 1.0, which leaves room for highlights up to 1.6
ALONG, ACROSS = np.linspace(0, 1, 11), np.linspace(-1, 1, 21)  # places on a brow or lid, on a lip
LATTICE_PX = 16  # frame pixels between the points where the warp is computed; linear in between


class Identity:
    """Draw a person at random: lengths in face units, weights from 0 to 1.

    Resting brows and mouths differ, so that one frame does not always tell a mood from a face.
    Brows rest at most 0.22 above the eyes, since FaceMesh loses those that rise above 0.3.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        """Sample all features independently of each other and of any label."""
        u = rng.uniform
        self.head_width = u(0.66, 0.77)  # half the head at the eyes
        self.jaw_taper = u(0.12, 0.34)  # share of the width that is lost down to the chin
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
        self.age = u(0, 0.5)  # weight of the folds that stay in a resting face
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
        self.hair = HAIR_COLOURS[rng.integers(6 if tone < 5 else 3)] * u(0.8, 1.2)
        self.brow = np.minimum(self.hair * 0.6, self.skin * 0.45)
        self.iris_colour = IRIS_COLOURS[rng.integers(len(IRIS_COLOURS))]

    def radius(self, x: np.ndarray, y: np.ndarray, grow: float = 0.0) -> np.ndarray:
        """Measure how far out points are: 0 at the origin, 1 on the outline of the head."""
        width = (self.head_width + grow) * (1 - self.jaw_taper * np.clip(y, 0, 1) ** 2)
        power = self.squareness
        return (np.abs(x / width) ** power + np.abs(y / (1 + grow)) ** power) ** (1 / power)


@dataclass(frozen=True)
class Pose:
    """Hold where the head is and looks; the default is upright and frontal."""

    x: float = 0.5  # middle of the head, share of the frame
    y: float = 0.5
    scale: float = 0.36  # a face unit (half the head's height), share of the frame
    roll: float = 0.0  # radians, clockwise
    yaw: float = 0.0  # radians, small: the features slide over the skull
    pitch: float = 0.0
    gaze_x: float = 0.0  # face units that the iris is off the middle of the eye
    gaze_y: float = 0.0


def wander(rng: np.random.Generator, num_frames: int, fps: float, hz: float) -> np.ndarray:
    """Sum three sines of up to `hz` hertz to a (num_frames,) float curve within -1.2 and 1.2."""
    seconds = np.arange(num_frames)[:, None] / fps
    turns = rng.uniform(0.2, 1, 3) * hz * seconds + rng.uniform(0, 1, 3)
    return 0.4 * np.sin(2 * np.pi * turns).sum(axis=1)


def ramp(seconds: np.ndarray, start: float, duration: float) -> np.ndarray:
    """Rise from 0 at `start` to 1 after `duration` seconds with no jump in speed (smoothstep)."""
    t = np.clip((seconds - start) / duration, 0, 1)
    return t * t * (3 - 2 * t)


def action_unit_curves(
    label: str, rng: np.random.Generator, num_frames: int, fps: float
) -> np.ndarray:
    """Let the prototype of an emotion rise, stay and fall over idle movement, speech and blinks.

    Args:
        label: Key of `PROTOTYPES`.
        rng: Source of timing, strength, asymmetry and noise.
        num_frames: Frames of the clip.
        fps: Frames per second.

    Returns:
        (num_frames, 12, 2) float, 0 to 1: frame, unit in the order of `ACTION_UNITS`, side (left
        and right in the image).
    """
    seconds, length = np.arange(num_frames) / fps, num_frames / fps
    curves = {unit: 0.07 * wander(rng, num_frames, fps, hz=1.5) for unit in ACTION_UNITS}

    # Felt smiles last 2/3 to 4 s (Ekman & Friesen, "Felt, false, and miserable smiles", 1982).
    onset, offset = length * rng.uniform(0, 0.25), length * rng.uniform(0.75, 1.05)
    rise, fall = rng.uniform(0.25, 0.8, 2)
    peak = rng.uniform(0.6, 1)
    for unit in PROTOTYPES[label]:
        start, stop = np.array([onset, offset]) + rng.uniform(-0.08, 0.08, 2)
        course = ramp(seconds, start, rise) - ramp(seconds, max(stop, start + rise), fall)
        curves[unit] += course * peak * rng.uniform(0.85, 1.1)

    if rng.random() < 0.4:  # speech: 3 to 5 syllables a second, in phrases
        syllables = np.sin(np.pi * rng.uniform(3, 5) * seconds) ** 2
        phrases = np.clip(wander(rng, num_frames, fps, hz=0.8) + 0.3, 0, 1)
        speech = syllables * phrases * rng.uniform(0.2, 0.5)
        curves[25] += speech
        curves[26] += 0.4 * speech
    for start in np.cumsum(rng.exponential(2.5, size=int(length) + 2)):  # seconds between
        curves[45] += ramp(seconds, start, 0.1) - ramp(seconds, start + 0.13, 0.15)

    asymmetry = rng.uniform(-0.12, 0.12, len(ACTION_UNITS))
    asymmetry[ACTION_UNITS.index(45)] = 0  # both eyes blink together
    both = np.stack(list(curves.values()), axis=1)  # (num_frames, 12)
    return np.clip(np.stack([both * (1 - asymmetry), both * (1 + asymmetry)], axis=2), 0, 1)


def head_motion(rng: np.random.Generator, num_frames: int, fps: float) -> list[Pose]:
    """Move a head gently about a place, size and angle that it keeps; one pose a frame."""
    scale = rng.uniform(0.34, 0.4)
    # In the order of the fields of Pose. The chin rests at 0.88 of the frame, from where a dropped
    # jaw still stays inside.
    rest = [rng.uniform(0.45, 0.55), 0.88 - scale, scale, *rng.uniform(-0.1, 0.1, 3), 0, 0]
    reach = np.array([0.02, 0.015, 0.008, 0.06, 0.12, 0.06, 0.02, 0.01])
    drift = np.stack([wander(rng, num_frames, fps, hz=0.7) for _ in rest], axis=1)
    return [Pose(*track) for track in rest + reach * drift]


def band(x: np.ndarray, top: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Outline the area between two curves over the same (N,) x, (2 N, 2)."""
    return np.array([np.concatenate([x, x[::-1]]), np.concatenate([top, low[::-1]])]).T


class Portrait:
    """Draw one person making any expression.

    What no action unit moves (skin, hair, ears, nose) is drawn once, on a canvas in face units. A
    frame copies it, draws eyes, brows and mouth on it, shades it and warps it into the pose.
    """

    def __init__(self, person: Identity, rng: np.random.Generator, size_px: int = 256) -> None:
        """Draw the parts that stay.

        Args:
            person: Who is drawn.
            rng: Source of the texture of skin and hair, and of the light.
            size_px: Height and width of the frames.
        """
        self.person = person
        self.size_px = size_px
        self.side = 2 * round(CANVAS_OVER_FRAME * size_px / 2)  # canvas pixels, even
        self.unit = self.side / (2 * HALF_CANVAS)  # canvas pixels of a face unit
        self.head = self._draw_head(rng)
        self.shade = self._draw_shade(rng)

    def draw(self, intensities: np.ndarray, pose: Pose, background: np.ndarray) -> np.ndarray:
        """Draw the person in front of a background.

        Args:
            intensities: (12, 2) float, 0 to 1: unit in the order of `ACTION_UNITS`, side (left and
                right in the image).
            pose: Where the head is and looks.
            background: (size_px, size_px, 3) uint8 BGR.

        Returns:
            (size_px, size_px, 3) uint8 BGR.
        """
        au = dict(zip(ACTION_UNITS, intensities, strict=True))
        canvas = self.head.copy()  # (side, side, 4) BGRA
        for side, mirror in enumerate((-1, 1)):
            one_side = {unit: both[side] for unit, both in au.items()}
            self._draw_eye(canvas, one_side, mirror, np.array([pose.gaze_x, pose.gaze_y]))
            self._draw_brow(canvas, one_side, mirror)
        self._draw_mouth(canvas, au)
        if self.person.glasses:
            self._draw_glasses(canvas)

        weights = np.append(np.float32(1), intensities.mean(axis=1).astype(np.float32))
        shade = (weights @ self.shade).reshape(self.side // 2, self.side // 2)
        shade = cv2.resize(cv2.convertScaleAbs(shade, alpha=SHADE_ONE), (self.side, self.side))
        shade = cv2.merge([shade, shade, shade, np.full_like(shade, SHADE_ONE)])
        canvas = cv2.multiply(canvas, shade, scale=1 / SHADE_ONE)

        head = cv2.remap(canvas, self._warp(pose, au[26].mean()), None, cv2.INTER_LINEAR)
        clear = cv2.cvtColor(255 - cv2.extractChannel(head, 3), cv2.COLOR_GRAY2BGR)
        visible = cv2.multiply(background, clear, scale=1 / 255)
        return cv2.add(visible, cv2.cvtColor(head, cv2.COLOR_BGRA2BGR))

    def _grid(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Give x (1, side) and y (side, 1) of the pixels of a canvas, float32 face units."""
        axis = (((np.arange(side) + 0.5) / side * 2 - 1) * HALF_CANVAS).astype(np.float32)
        return axis[None, :], axis[:, None]

    def _draw_head(self, rng: np.random.Generator) -> np.ndarray:
        """Draw hair, ears, skin, beard and nose in even light, (side, side, 4) uint8 BGRA.

        The colours are premultiplied: black where alpha is 0.
        """
        person, side = self.person, self.side
        x, y = self._grid(side)
        noise = rng.standard_normal((3, side, side), dtype=np.float32)
        mottle = 0.08 * cv2.GaussianBlur(noise[0], (0, 0), 2)[..., None]
        strands = 0.9 * cv2.blur(noise[1], (2, side // 12))[..., None]
        lock = 0.5 * person.curl * cv2.GaussianBlur(noise[2], (0, 0), 7)
        skin = person.skin.astype(np.float32) * (1 + mottle)
        hair = person.hair.astype(np.float32) * (1 + strands)
        picture = np.zeros((side, side, 3), np.float32)
        alpha = np.zeros((side, side), np.float32)

        def cover(inside: np.ndarray, softness: float = 0.015) -> np.ndarray:
            """Turn a field that is positive inside into weights from 0 to 1, soft at the border."""
            return np.clip(inside / softness + 0.5, 0, 1)

        def lay(colour: np.ndarray, weight: np.ndarray) -> None:
            np.add(picture, (colour - picture) * weight[..., None], out=picture)
            np.maximum(alpha, weight, out=alpha)

        outline = 1 - person.radius(x, y.clip(max=0), person.hair_volume) + lock
        lay(hair * 0.75, cover(np.minimum(outline, (person.hair_end + lock - y) / 2)))
        ear = 1 - np.hypot((np.abs(x) - person.head_width - 0.03) / 0.09, (y - 0.12) / 0.2)
        lay(skin * 0.9, cover(ear, 0.1))
        lay(skin * 0.7, cover(ear - 0.5, 0.4) * 0.6)
        skull = person.radius(x, y)
        lay(skin, cover(1 - skull))
        jaw = np.exp(-(((skull - 0.95) / 0.25) ** 2)) * cover(y - 0.42, 0.3)
        lay(hair, jaw * (skull < 1) * person.beard)
        strip = np.exp(-((x / 0.24) ** 4) - ((y - person.mouth_y + 0.11) / 0.045) ** 2)
        lay(hair, strip * person.moustache)
        temple = 0.2  # y to which hair comes down before the ears
        line = person.hairline + (temple - person.hairline) * (np.abs(x) / person.head_width) ** 5
        line = np.minimum(line + person.hair_slant * x, temple) + 0.5 * lock
        lay(hair, cover(np.minimum(outline, line - y), 0.04))

        picture = np.dstack([picture, 255 * alpha]).clip(0, 255).round().astype(np.uint8)
        nose = person.nose_y
        nostril = np.array([(0.03, nose + 0.05), (0.06, nose + 0.035), (0.085, nose + 0.055)])
        t = np.linspace(-0.8, 1.4, 7)
        wing = np.array([person.nose_width * np.cos(t), 0.06 * np.sin(t) + nose]).T
        for mirror in (-1, 1):
            self._line(picture, nostril * (mirror, 1), person.skin * 0.3, 0.028)
            self._line(picture, wing * (mirror, 1), person.skin * 0.62, 0.016)
        return picture

    def _draw_shade(self, rng: np.random.Generator) -> np.ndarray:
        """Light the head as a relief, and add what each action unit darkens or brightens.

        Lambert's law on an ellipsoid with nose, eye sockets, cheeks and chin, at half the canvas's
        resolution.

        Returns:
            (1 + 12, side / 2 * side / 2) float32: shade of the resting face, then the change by
            each unit, so that one product with (1, intensities) gives the shade of a frame.
        """
        person, side = self.person, self.side // 2
        x, y = self._grid(side)

        def bump(at_x: float, at_y: float, width: float, height: float) -> np.ndarray:
            return np.exp(-(((np.abs(x) - at_x) / width) ** 2) - ((y - at_y) / height) ** 2)

        ridge = np.exp(-((x / 0.075) ** 2)) * np.clip(y / 0.4 + 0.75, 0, 1) * (0.5 + y.clip(0, 0.5))
        ridge = ridge * np.clip((person.nose_y - y) / 0.1 + 0.5, 0, 1)
        relief = 0.85 * np.sqrt(np.clip(1 - person.radius(x, y) ** 2, 0, 1))
        relief += person.nose_height * (ridge + 0.35 * bump(0, person.nose_y, 0.09, 0.07))
        relief += 0.06 * bump(person.nose_width * 0.8, person.nose_y + 0.02, 0.045, 0.05)
        relief -= 0.10 * bump(person.eye_x - 0.05, person.eye_y, 0.2, 0.1)  # sockets
        relief += 0.05 * bump(0.4, 0.25, 0.15, 0.12) + 0.05 * bump(0, 0.88, 0.16, 0.1)
        relief -= 0.03 * bump(0, person.mouth_y + 0.14, 0.12, 0.03)
        relief = cv2.GaussianBlur(relief, (0, 0), 0.01 * self.unit)

        down, right = np.gradient(relief, 2 / self.unit)
        light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.6, 0), 1])
        light /= np.linalg.norm(light)
        facing = light[2] - right * light[0] - down * light[1]
        facing /= np.sqrt(1 + right**2 + down**2)
        ambient = rng.uniform(0.4, 0.65)
        folds = self._draw_folds()
        folds[ACTION_UNITS.index(6)] += 0.16 * bump(0.38, 0.27, 0.13, 0.09)  # raised cheeks
        folds[ACTION_UNITS.index(12)] += 0.10 * bump(0.38, 0.27, 0.13, 0.09)
        rest = ambient + (1.05 - ambient) * np.clip(facing, 0, 1) + person.age * folds.mean(axis=0)
        return np.stack([rest, *folds]).reshape(1 + len(ACTION_UNITS), -1).astype(np.float32)

    def _draw_folds(self) -> np.ndarray:
        """Draw the furrows of each action unit, (12, side / 2, side / 2) float32, 0 or less."""
        person, side = self.person, self.side // 2
        eye, outer, bag = person.eye_x, person.eye_x + person.eye_width, person.eye_y + 0.11
        wing, corner, lip = person.nose_width, person.mouth_width, person.mouth_y
        # Action unit -> strokes on the right half: darkness, width, points.
        strokes = {
            1: [(0.3, 0.02, [(0, y), (0.14, y), (0.26, y + 0.02)]) for y in (-0.54, -0.42)],
            2: [(0.25, 0.02, [(0.26, y), (0.38, y), (0.5, y + 0.05)]) for y in (-0.52, -0.4)],
            4: [(0.5, 0.035, [(0.06, -0.32), (0.05, -0.22), (0.065, -0.12)])],
            6: [(0.3, 0.02, [(outer + 0.04, y), (outer + 0.15, 2 * y)]) for y in (-0.05, 0, 0.06)]
            + [(0.35, 0.03, [(eye - 0.13, bag), (eye, bag + 0.02), (eye + 0.15, bag - 0.03)])],
            7: [(0.25, 0.03, [(eye - 0.12, bag - 0.02), (eye, bag), (eye + 0.12, bag - 0.02)])],
            12: [(0.35, 0.035, [(wing + 0.01, 0.36), (corner + 0.1, 0.46), (corner + 0.15, 0.62)])],
            15: [(0.25, 0.04, [(corner + 0.04, lip + 0.12), (corner + 0.05, lip + 0.22)])],
            23: [(0.25, 0.03, [(0, lip + 0.15), (0.12, lip + 0.14)])],
        }
        folds = np.zeros((len(ACTION_UNITS), side, side), np.float32)
        for unit, lines in strokes.items():
            for darkness, width, points in lines:
                thickness = max(1, round(width * self.unit / 2))
                both = [self._px(np.array(points) * (mirror, 1)) // 2 for mirror in (-1, 1)]
                layer = np.zeros((side, side), np.float32)
                cv2.polylines(layer, both, False, darkness, thickness, cv2.LINE_8, SHIFT)
                folds[ACTION_UNITS.index(unit)] -= cv2.GaussianBlur(layer, (0, 0), 0.6 * thickness)
        return folds

    def _px(self, points: np.ndarray) -> np.ndarray:
        """Turn face coordinates into canvas pixels in OpenCV's fixed point."""
        # OpenCV's pixel (0, 0) has its middle at 0, the canvas's at half a pixel.
        return (((points + HALF_CANVAS) * self.unit - 0.5) * 2**SHIFT).astype(np.int32)

    def _fill(self, canvas: np.ndarray, points: np.ndarray, colour: np.ndarray) -> None:
        colour = (*map(float, colour), 255)
        cv2.fillPoly(canvas, [self._px(points)], colour, cv2.LINE_AA, SHIFT)

    def _line(
        self, canvas: np.ndarray, points: np.ndarray, colour: np.ndarray, width: float
    ) -> None:
        colour, thickness = (*map(float, colour), 255), max(1, round(width * self.unit))
        cv2.polylines(canvas, [self._px(points)], False, colour, thickness, cv2.LINE_AA, SHIFT)

    def _disc(
        self, canvas: np.ndarray, centre: np.ndarray, radius: float, colour: np.ndarray
    ) -> None:
        colour, radius = (*map(float, colour), 255), round(radius * self.unit * 2**SHIFT)
        cv2.circle(canvas, self._px(centre).tolist(), radius, colour, -1, cv2.LINE_AA, SHIFT)

    def _draw_brow(self, canvas: np.ndarray, au: Mapping[int, float], mirror: int) -> None:
        """Draw a brow: 1 lifts its inner end, 2 its outer end, 4 lowers it and draws it inward."""
        person = self.person
        t = ALONG  # from the inner to the outer end
        x = person.eye_x - 0.19 + person.brow_length * t - 0.06 * au[4] * (1 - t)
        y = person.eye_y + person.brow_y + person.brow_tilt * (t - 0.5)
        y -= person.brow_arch * np.sin(np.pi * t**1.3)
        y -= 0.11 * au[1] * (1 - t) ** 1.3 + 0.1 * au[2] * t**0.8
        # In 1+4 the inner end rises all the same; 4 lowers only the rest (FACS, AU 1+4).
        y += 0.09 * au[4] * (1 - 0.35 * t) * (1 - 0.9 * au[1] * (1 - t))
        half = person.brow_thickness / 2 * (1 - t**3) * (0.75 + 0.5 * np.sqrt(t))
        self._fill(canvas, band(x * mirror, y - half, y + half), person.brow)

    def _draw_eye(
        self, canvas: np.ndarray, au: Mapping[int, float], mirror: int, gaze: np.ndarray
    ) -> None:
        """Draw an eye: 5 lifts the upper lid, 6 and 7 raise the lower one, 45 closes both."""
        person = self.person
        t = ALONG  # from the inner to the outer corner
        arc = np.sin(np.pi * t) ** 0.8
        x = mirror * (person.eye_x + person.eye_width * (2 * t - 1))
        y = person.eye_y + 0.01 - person.eye_slant * (2 * t - 1)
        above = person.eye_open * (1 + 0.75 * au[5] - 0.3 * au[7] - 0.1 * au[6])
        below = person.eye_open * 0.6 * (1 + 0.15 * au[5] - 0.7 * au[6] - 0.55 * au[7])
        above = above * (1 - au[45]) - 0.8 * below * au[45]
        crease = person.eye_open * (1.45 + 0.5 * au[5]) - 0.03 * au[4]
        upper, lower, fold = y - above * arc, y + below * arc, y - crease * arc**0.75
        self._fill(canvas, band(x, fold, upper), person.skin * 0.86)
        self._line(canvas, np.array([x, fold]).T, person.skin * 0.62, 0.012)

        # Paint the eyeball over the lids, then lay the lids back around the opening.
        opening = band(x, upper, lower)
        left, top = self._px(opening.min(axis=0) - 0.1) >> SHIFT
        right, bottom = self._px(opening.max(axis=0) + 0.1) >> SHIFT
        socket = canvas[top:bottom, left:right]
        lids = socket.copy()
        self._fill(canvas, opening, SCLERA)
        iris = np.array([person.eye_x * mirror, person.eye_y - 0.01]) + gaze
        self._disc(canvas, iris, person.iris, person.iris_colour * 0.45)
        self._disc(canvas, iris, person.iris * 0.85, person.iris_colour)
        self._disc(canvas, iris, person.iris * 0.42, BLACK)
        self._disc(canvas, iris + np.array([0.02, -0.025]), 0.014, WHITE)
        closed = np.full(socket.shape[:2], 255, np.uint8)
        outline = self._px(opening) - np.array([left, top]) * 2**SHIFT
        cv2.fillPoly(closed, [outline], 0, cv2.LINE_8, SHIFT)
        cv2.copyTo(lids, closed, socket)
        self._line(canvas, np.array([x, lower]).T, person.skin * 0.6, 0.01)
        self._line(canvas, np.array([x, upper]).T, person.skin * 0.15, 0.024)

    def _draw_mouth(self, canvas: np.ndarray, au: Mapping[int, np.ndarray]) -> None:
        """Draw lips, teeth and tongue.

        12 pulls the corners up and out, 15 pulls them down, 23 narrows and thins the lips, 25 parts
        them, and 26 parts them more (the jaw itself drops in the warp).
        """
        person = self.person
        tight, part, drop = (au[unit].mean() for unit in (23, 25, 26))
        t = ACROSS  # from corner to corner
        side = (t > 0).astype(int)
        reach = 1 + 0.32 * au[12] - 0.04 * au[15] - 0.2 * tight - 0.25 * drop
        corner = person.mouth_curve - 0.15 * au[12] + 0.13 * au[15]
        x = t * person.mouth_width * reach[side]
        y = person.mouth_y + corner[side] * np.abs(t) ** 1.8 + 0.02 * (au[12] - au[15]).mean()
        bow = 1 - t**2
        cupid = np.sqrt(bow) * (1 - 0.3 * np.exp(-((t / 0.16) ** 2)))
        gap = (0.07 * part + 0.24 * drop) * bow**0.55
        thin = (1 - 0.6 * tight) * (1 - 0.25 * au[12].mean())
        inner_top, inner_low = y - 0.25 * gap, y + 0.75 * gap
        outer_top = inner_top - person.upper_lip * thin * cupid
        outer_low = inner_low + person.lower_lip * thin * np.sqrt(bow)
        teeth = np.minimum(inner_top + 0.05 * np.sqrt(bow), inner_low)
        tongue = np.maximum(inner_low - 0.35 * gap, teeth)

        lip = person.skin * (0.6, 0.55, 0.78)
        self._fill(canvas, band(x, outer_top, inner_top), lip * 0.88)
        self._fill(canvas, band(x, inner_low, outer_low), lip)
        if gap.max() * self.unit > 1:  # below a pixel, soft borders would show teeth in shut lips
            self._fill(canvas, band(x, inner_top, inner_low), THROAT)
            self._fill(canvas, band(x, inner_top, teeth), TEETH)
            self._fill(canvas, band(x, tongue, inner_low), TONGUE)
        self._line(canvas, np.array([x, inner_top]).T, lip * 0.3, 0.014)

    def _draw_glasses(self, canvas: np.ndarray) -> None:
        person = self.person
        t = np.linspace(0, 2 * np.pi, 25)
        rim = np.array([0.18 * np.cos(t) + person.eye_x, 0.14 * np.sin(t) + person.eye_y]).T
        bridge = np.array([(0, person.eye_y), (person.eye_x - 0.18, person.eye_y)])
        for mirror in (-1, 1):
            self._line(canvas, rim * (mirror, 1), FRAME, 0.012)
            self._line(canvas, bridge * (mirror, 1), FRAME, 0.012)

    def _warp(self, pose: Pose, jaw: float) -> np.ndarray:
        """Find the canvas pixel that each frame pixel shows, (size_px, size_px, 2) float32.

        Undoes the pose, then the turn (a point slides by its depth times the sine of the angle),
        then the jaw drop (26 stretches all that is below the upper lip).
        """
        # One point beyond the frame on each side, since resizing repeats the outermost ones.
        places = (np.arange(-(-self.size_px // LATTICE_PX) + 2) - 0.5) * LATTICE_PX / self.size_px
        x, y = np.meshgrid(places - pose.x, places - pose.y)
        cos, sin = np.cos(pose.roll) / pose.scale, np.sin(pose.roll) / pose.scale
        x, y = cos * x + sin * y, cos * y - sin * x
        depth = 0.8 * np.sqrt(np.clip(1 - (x / self.person.head_width) ** 2 - y**2, 0, 1))
        x, y = x - np.sin(pose.yaw) * depth, y - np.sin(pose.pitch) * depth
        below = np.maximum(y - self.person.mouth_y + 0.03, 0)
        y = y - below * (1 - 1 / (1 + 0.38 * jaw))
        lattice = (np.stack([x, y], axis=2) + HALF_CANVAS) * self.unit - 0.5
        field = cv2.resize(lattice.astype(np.float32), None, fx=LATTICE_PX, fy=LATTICE_PX)
        return field[LATTICE_PX:, LATTICE_PX:][: self.size_px, : self.size_px]


def draw_background(
    person: Identity, pose: Pose, rng: np.random.Generator, size_px: int
) -> np.ndarray:
    """Draw a room out of focus, and neck and shoulders, (size_px, size_px, 3) uint8 BGR."""

    def dull_colour() -> np.ndarray:
        return rng.uniform(40, 210) + rng.uniform(-35, 35, 3)

    start, stop = dull_colour(), dull_colour()
    down = np.linspace(0, 1, size_px, dtype=np.float32)[:, None, None]
    picture = np.tile((start + (stop - start) * down).astype(np.float32), (1, size_px, 1))
    for _ in range(rng.integers(2, 9)):
        colour = dull_colour()
        x, y, width, height = (rng.uniform(0, (1, 1, 0.5, 0.5)) * size_px).astype(int).tolist()
        if rng.random() < 0.5:
            cv2.rectangle(picture, (x, y, width, height), colour, -1)
        else:
            cv2.ellipse(picture, ((x, y), (width, height), rng.uniform(0, 180)), colour, -1)
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.01, 0.05) * size_px)
    clouds = rng.normal(0, rng.uniform(0, 10), (12, 12)).astype(np.float32)
    picture += cv2.resize(clouds, (size_px, size_px), interpolation=cv2.INTER_CUBIC)[..., None]

    unit, middle = pose.scale * size_px, np.array([pose.x, pose.y]) * size_px
    shoulders = ((middle[0], middle[1] + 2.15 * unit), (3 * unit, 2 * unit), 0)
    cv2.ellipse(picture, shoulders, dull_colour(), -1, cv2.LINE_AA)
    half = 0.62 * person.head_width
    outline = np.array([(-half, 0.4), (-half, 1.3), (0, 1.55), (half, 1.3), (half, 0.4)])
    neck = np.zeros((size_px, size_px), np.float32)
    cv2.fillPoly(neck, [(outline * unit + middle).round().astype(np.int32)], 1)
    below_chin = (down * size_px - middle[1]) / unit - 1
    shadowed = person.skin * np.clip(0.5 + below_chin, 0.5, 0.85)
    picture += (shadowed - picture) * cv2.GaussianBlur(neck, (0, 0), 1)[..., None]
    return picture.clip(0, 255).astype(np.uint8)


def render_frames(
    label: str,
    seed: int,
    clip_id: int,
    *,
    num_frames: int = 90,
    size_px: int = 256,
    fps: float = 30.0,
) -> Iterator[np.ndarray]:
    """Render a clip of a new person who makes one expression.

    Args:
        label: Key of `PROTOTYPES`.
        seed: Seed of the whole set.
        clip_id: Number of the clip. Seed, label and number together decide every pixel.
        num_frames: Frames of the clip.
        size_px: Height and width.
        fps: Frames per second.

    Yields:
        (size_px, size_px, 3) uint8 BGR frames.

    Raises:
        UserError: The label is unknown.
    """
    if label not in PROTOTYPES:
        raise UserError(f"label {label!r} is unknown; known are {', '.join(PROTOTYPES)}")
    rng = np.random.default_rng([seed, list(PROTOTYPES).index(label), clip_id])
    person = Identity(rng)
    portrait = Portrait(person, rng, size_px)
    poses = head_motion(rng, num_frames, fps)
    background = draw_background(person, poses[0], rng, size_px)
    # A camera exposes for the face, though not all the way: dark skin stays darker.
    contrast = rng.uniform(0.85, 1.15) * (120 / person.skin.mean()) ** 0.45
    brightness = rng.uniform(-20, 20) + 2 * wander(rng, num_frames, fps, hz=4)  # lamps flicker
    # One tile of sensor noise for all frames, each at its own place: drawing noise anew costs 4 ms.
    grain = rng.standard_normal((size_px + 64, size_px + 64, 3), np.float32) * rng.uniform(1, 5)
    grain = (128 + grain).clip(0, 255).astype(np.uint8)
    places = rng.integers(64, size=(num_frames, 2))
    curves = action_unit_curves(label, rng, num_frames, fps)
    for intensities, pose, (x, y), level in zip(curves, poses, places, brightness, strict=True):
        picture = portrait.draw(intensities, pose, background)
        noise = grain[y : y + size_px, x : x + size_px]
        yield cv2.addWeighted(picture, contrast, noise, 1, level - 128)


def write_clip(
    path: Path,
    label: str,
    seed: int,
    clip_id: int,
    *,
    num_frames: int = 90,
    size_px: int = 256,
    fps: float = 30.0,
) -> None:
    """Render a clip into an MPEG-4 file, which appears only when it is whole.

    The arguments are those of `render_frames`.

    Raises:
        OSError: The file can't be opened for writing.
        UserError: The label is unknown.
    """
    codec = cv2.VideoWriter_fourcc(*"mp4v")
    with unfinished(path) as temporary:
        writer = cv2.VideoWriter(str(temporary), codec, fps, (size_px, size_px))
        if not writer.isOpened():
            raise OSError(f"{path}: can't be opened for writing")
        for frame in render_frames(
            label, seed, clip_id, num_frames=num_frames, size_px=size_px, fps=fps
        ):
            writer.write(frame)
        writer.release()  # writes the index, without which no player opens the file


def parse_name(path: Path) -> tuple[str, int]:
    """Read label and number from a name such as `Happy_0001.mp4`.

    Raises:
        UserError: The name is of another form or its label is unknown.
    """
    label, _, number = path.stem.rpartition("_")
    if label not in PROTOTYPES or not number.isdecimal():
        raise UserError(
            f"{path}: a demo clip is named <Label>_<number>.mp4, where the label is one of "
            f"{', '.join(PROTOTYPES)}"
        )
    return label, int(number)


def render_clips(
    paths: Sequence[Path],
    seed: int,
    num_workers: int,
    on_done: Callable[[], None] | None = None,
    **settings: float,
) -> None:
    """Render the clips that do not exist yet, in parallel processes.

    Args:
        paths: Files to write, named `<Label>_<number>.mp4`; their folders are made.
        seed: Seed of the whole set.
        num_workers: Processes.
        on_done: Called after each clip, for a progress bar.
        **settings: `num_frames`, `size_px` and `fps`, as in `render_frames`.

    Raises:
        UserError: A name has no known label or no number; nothing is written then.
    """
    clips = [(path, *parse_name(path)) for path in paths]
    missing = [clip for clip in clips if not clip[0].exists()]
    for folder in {path.parent for path, _, _ in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    jobs = [delayed(_write_on_one_core)(*clip, seed, settings) for clip in missing]
    for _ in Parallel(num_workers, return_as="generator_unordered")(jobs):
        if on_done:
            on_done()


def _write_on_one_core(
    path: Path, label: str, clip_id: int, seed: int, settings: Mapping[str, float]
) -> None:
    cv2.setNumThreads(1)  # there are as many processes as cores
    write_clip(path, label, seed, clip_id, **settings)
