"""Draw one synthetic person with any expression in any pose, using OpenCV.

Positions and distances were tuned by eye on contact sheets and checked with FaceMesh landmarks.
Coordinates are face units, colors BGR from 0 to 255: see `emotion/clips/demo/identity.py`.
"""

from collections.abc import Mapping

import cv2
import numpy as np

from emotion.clips.demo.identity import Identity
from emotion.clips.demo.motion import ACTION_UNITS, Pose

BLACK, WHITE = np.array([12, 12, 12]), np.array([250, 250, 250])
SCLERA, TEETH = np.array([186, 189, 194]), np.array([185, 196, 202])
THROAT, TONGUE = np.array([30, 22, 52]), np.array([80, 72, 140])
FRAME = np.array([60, 64, 70])  # of glasses; FaceMesh mistakes black frames for brows

HALF_CANVAS = 1.45  # face units from center to border of the canvas: room for hair and ears
CANVAS_OVER_FRAME = 1.15  # makes the canvas no coarser than the largest face in a frame
SHIFT = 4  # OpenCV draws at 1/16 pixel; at whole pixels, slow motion would jump
SHADE_ONE = 160  # uint8 level of shade 1.0, which leaves room for highlights up to 1.6
ALONG, ACROSS = np.linspace(0, 1, 11), np.linspace(-1, 1, 21)  # brow or lid, lips
LATTICE_PX = 16  # frame pixels between the points where the warp is computed; linear in between


def band(x: np.ndarray, top: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return the (2 N, 2) outline of the area between two curves over (N,) x."""
    return np.array([np.concatenate([x, x[::-1]]), np.concatenate([top, low[::-1]])]).T


class Portrait:
    """Draws frames of one person with any expression.

    What no action unit moves is drawn once, on a canvas in face units. Each frame copies it, adds
    eyes, brows and mouth, shades it and warps it into the pose.
    """

    def __init__(self, person: Identity, rng: np.random.Generator, size_px: int = 256) -> None:
        """Draw the static parts, with random texture and light, for frames of this size."""
        self.person = person
        self.size_px = size_px
        self.side = 2 * round(CANVAS_OVER_FRAME * size_px / 2)  # canvas pixels, even
        self.unit = self.side / (2 * HALF_CANVAS)  # canvas pixels per face unit
        self.head = self._draw_head(rng)
        self.shade = self._draw_shade(rng)

    def draw(self, intensities: np.ndarray, pose: Pose, background: np.ndarray) -> np.ndarray:
        """Draw the person in front of a background, both (size_px, size_px, 3) uint8 BGR.

        `intensities` are those of one frame of `action_unit_curves`, (12, 2) float, 0 to 1.
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
        """Return x (1, side) and y (side, 1) of a canvas's pixels, float32 face units."""
        axis = (((np.arange(side) + 0.5) / side * 2 - 1) * HALF_CANVAS).astype(np.float32)
        return axis[None, :], axis[:, None]

    def _draw_head(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the resting head in even light, (side, side, 4) uint8 BGRA, premultiplied."""
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
            """Convert a field that is positive inside to weights, 0 to 1, with a soft border."""
            return np.clip(inside / softness + 0.5, 0, 1)

        def lay(color: np.ndarray, weight: np.ndarray) -> None:
            np.add(picture, (color - picture) * weight[..., None], out=picture)
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
        temple = 0.2  # y down to which hair grows in front of the ears
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
        """Shade the head as a relief by Lambert's law, at half the canvas's resolution.

        Returns:
            (1 + 12, side / 2 * side / 2) float32: shade of the resting face, then the change by
            each action unit: the product of (1, intensities) with it is the shade of a frame.
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
        """Convert face units to canvas pixels in OpenCV's fixed-point format."""
        # OpenCV places the center of pixel (0, 0) at 0, the canvas at half a pixel.
        return (((points + HALF_CANVAS) * self.unit - 0.5) * 2**SHIFT).astype(np.int32)

    def _fill(self, canvas: np.ndarray, points: np.ndarray, color: np.ndarray) -> None:
        color = (*map(float, color), 255)
        cv2.fillPoly(canvas, [self._px(points)], color, cv2.LINE_AA, SHIFT)

    def _line(
        self, canvas: np.ndarray, points: np.ndarray, color: np.ndarray, width: float
    ) -> None:
        color, thickness = (*map(float, color), 255), max(1, round(width * self.unit))
        cv2.polylines(canvas, [self._px(points)], False, color, thickness, cv2.LINE_AA, SHIFT)

    def _disc(
        self, canvas: np.ndarray, center: np.ndarray, radius: float, color: np.ndarray
    ) -> None:
        color, radius = (*map(float, color), 255), round(radius * self.unit * 2**SHIFT)
        cv2.circle(canvas, self._px(center).tolist(), radius, color, -1, cv2.LINE_AA, SHIFT)

    def _draw_brow(self, canvas: np.ndarray, au: Mapping[int, float], mirror: int) -> None:
        """Draw a brow: 1 lifts its inner end, 2 its outer end, 4 lowers it and pulls it inward."""
        person = self.person
        t = ALONG  # from the inner to the outer end
        x = person.eye_x - 0.19 + person.brow_length * t - 0.06 * au[4] * (1 - t)
        y = person.eye_y + person.brow_y + person.brow_tilt * (t - 0.5)
        y -= person.brow_arch * np.sin(np.pi * t**1.3)
        y -= 0.11 * au[1] * (1 - t) ** 1.3 + 0.1 * au[2] * t**0.8
        # In 1+4 the inner end still rises; 4 lowers only the rest (FACS, AU 1+4).
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

        # Paint the eyeball over the lids, then restore the lids around the opening.
        opening = band(x, upper, lower)
        left, top = self._px(opening.min(axis=0) - 0.1) >> SHIFT
        right, bottom = self._px(opening.max(axis=0) + 0.1) >> SHIFT
        socket = canvas[top:bottom, left:right]
        lids = socket.copy()
        self._fill(canvas, opening, SCLERA)
        iris = np.array([person.eye_x * mirror, person.eye_y - 0.01]) + gaze
        self._disc(canvas, iris, person.iris, person.iris_color * 0.45)
        self._disc(canvas, iris, person.iris * 0.85, person.iris_color)
        self._disc(canvas, iris, person.iris * 0.42, BLACK)
        self._disc(canvas, iris + np.array([0.02, -0.025]), 0.014, WHITE)
        closed = np.full(socket.shape[:2], 255, np.uint8)
        outline = self._px(opening) - np.array([left, top]) * 2**SHIFT
        cv2.fillPoly(closed, [outline], 0, cv2.LINE_8, SHIFT)
        cv2.copyTo(lids, closed, socket)
        self._line(canvas, np.array([x, lower]).T, person.skin * 0.6, 0.01)
        self._line(canvas, np.array([x, upper]).T, person.skin * 0.15, 0.024)

    def _draw_mouth(self, canvas: np.ndarray, au: Mapping[int, np.ndarray]) -> None:
        """Draw a mouth: 12 pulls its corners up and out, 15 down, 23 thins, 25 and 26 part lips."""
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
        if gap.max() * self.unit > 1:  # else soft borders would show teeth between closed lips
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
        """Return the canvas position of each frame pixel, (size_px, size_px, 2) float32.

        Inverts the pose, then the turn (a point shifts by its depth times the sine of the angle),
        then the jaw drop (26 stretches everything below the upper lip).
        """
        # One point beyond the frame on each side: resizing repeats the outermost points.
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
