"""Temperature scaling: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017."""

import numpy as np


def calibrate(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Turn (N, C) logits, or log-probabilities, into (N, C) float64 calibrated probabilities."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
