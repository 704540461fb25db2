"""Predict emotions in clips or from a webcam: python predict.py model_path=RUN clips=PATH."""

from emotion.commands import run_predict

if __name__ == "__main__":
    run_predict()
