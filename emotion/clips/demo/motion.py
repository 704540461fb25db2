"""Facial expressions and head motion of the demo clips, as curves over time.

A face is moved by action units of the Facial Action Coding System (Ekman & Friesen, *Facial Action
Coding System*, 1978). An emotion is its EMFACS prototype (Ekman & Friesen, *EMFACS*, 1983), which
rises, holds and falls. Everything else (head motion, blinks, speech) has the same distribution for
every label, so only the expression carries the label.
"""

from dataclasses import dataclass

import numpy as np

# FACS numbers of the action units that the portrait supports; 45 is the blink.
ACTION_UNITS = (1, 2, 4, 5, 6, 7, 12, 15, 23, 25, 26, 45)

# EMFACS prototypes. A dropped jaw (26) parts the lips, which FACS also scores as 25.
PROTOTYPES: dict[str, tuple[int, ...]] = {
    "Anger": (4, 5, 7, 23),
    "Happy": (6, 12),
    "Neutral": (),
    "Sad": (1, 4, 15),
    "Shock": (1, 2, 5, 25, 26),
}


@dataclass(frozen=True)
class Pose:
    """Position, size, rotation and gaze of the head; the default is upright and frontal."""

    x: float = 0.5  # center of the head, relative to the frame
    y: float = 0.5
    scale: float = 0.36  # a face unit (half the head's height), relative to the frame
    roll: float = 0.0  # radians, clockwise
    yaw: float = 0.0  # radians, small: the features slide over the skull
    pitch: float = 0.0
    gaze_x: float = 0.0  # offset of the iris from the eye's center, in face units
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
    """Return the action units of an emotion, plus idle movement, speech and blinks.

    Returns:
        (num_frames, 12, 2) float, 0 to 1: frame, unit of `ACTION_UNITS`, left and right side.
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
    for start in np.cumsum(rng.exponential(2.5, size=int(length) + 2)):  # seconds between blinks
        curves[45] += ramp(seconds, start, 0.1) - ramp(seconds, start + 0.13, 0.15)

    asymmetry = rng.uniform(-0.12, 0.12, len(ACTION_UNITS))
    asymmetry[ACTION_UNITS.index(45)] = 0  # both eyes blink together
    both = np.stack(list(curves.values()), axis=1)  # (num_frames, 12)
    return np.clip(np.stack([both * (1 - asymmetry), both * (1 + asymmetry)], axis=2), 0, 1)


def head_motion(rng: np.random.Generator, num_frames: int, fps: float) -> list[Pose]:
    """Return one pose per frame, which drifts gently around a fixed pose."""
    scale = rng.uniform(0.34, 0.4)
    # In the order of the fields of Pose. The chin rests at 0.88 of the frame, so that a dropped jaw
    # stays inside it.
    rest = [rng.uniform(0.45, 0.55), 0.88 - scale, scale, *rng.uniform(-0.1, 0.1, 3), 0, 0]
    reach = np.array([0.02, 0.015, 0.008, 0.06, 0.12, 0.06, 0.02, 0.01])
    drift = np.stack([wander(rng, num_frames, fps, hz=0.7) for _ in rest], axis=1)
    return [Pose(*track) for track in rest + reach * drift]
