"""Predict the emotion in clips, from Python.

python examples/predict.py CLIP...    # MODEL=outputs/runs/NAME chooses a trained model
"""

import os
import sys

from emotion import EmotionRecognizer


def main(*clips: str) -> None:
    """Print the emotion of each clip and of each of its segments."""
    recognizer = EmotionRecognizer.load(os.environ.get("MODEL", "starter"))
    for clip in clips:
        answer = recognizer.predict(clip)
        print(clip, answer.label or "; ".join(answer.reasons), "(unsure)" * answer.unsure)
        for segment in answer.segments:
            print("  from frame", segment.first_frame, segment.label, segment.probabilities)


if __name__ == "__main__":
    main(*sys.argv[1:])
