"""MediaPipe's FaceLandmarker with nothing of ours around it, to compare with."""

from weakref import finalize

import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from emotion.stacks.face_model import find_face_model


class PlainMesh:
    """Finds the landmarks of one face, in pictures or, with `step_ms`, in the frames of a clip."""

    def __init__(self, step_ms: int = 0) -> None:
        mode = vision.RunningMode.VIDEO if step_ms else vision.RunningMode.IMAGE
        base = BaseOptions(model_asset_path=str(find_face_model()))
        options = vision.FaceLandmarkerOptions(base, running_mode=mode)
        self.landmarker = vision.FaceLandmarker.create_from_options(options)
        finalize(self, self.landmarker.close).atexit = False
        self.step_ms, self.time_ms = step_ms, 0

    def find(self, frame: np.ndarray) -> np.ndarray | None:
        """Return (468, 3) x, y and z as fractions of (H, W, 3) uint8 RGB; None without a face."""
        image = mp.Image(mp.ImageFormat.SRGB, np.ascontiguousarray(frame))
        self.time_ms += self.step_ms
        if self.step_ms:
            result = self.landmarker.detect_for_video(image, self.time_ms)
        else:
            result = self.landmarker.detect(image)
        if not result.face_landmarks:
            return None
        return np.array([[p.x, p.y, p.z] for p in result.face_landmarks[0]])[:468]
