"""Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017)."""

import numpy as np

TEMPERATURES = (0.01, 100.0)  # at the upper one all classes are almost equally probable


def best_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Find the temperature that minimizes the mean negative log-likelihood of the true classes.

    The targets are smoothed by 1 / (N + 1), as if there were one more stack whose class is uniform
    (after Platt, "Probabilistic Outputs for Support Vector Machines", 1999). The derivative with
    respect to 1 / temperature is monotonic, so its zero is found by bisection.

    Args:
        logits: (N, C) float64, N at least 1.
        targets: (N,) class indices.

    Returns:
        A value within `TEMPERATURES`: the upper bound if the model is no better than chance; 1 if
        it gives all classes of every stack the same probability.
    """
    if not np.ptp(logits, axis=1).any():
        return 1.0
    num, size = logits.shape
    smoothing = 1 / (num + 1)
    shares = np.full((num, size), smoothing / size)
    shares[np.arange(num), targets] += 1 - smoothing
    wanted = (shares * logits).sum(axis=1).mean()

    def slope(inverse: float) -> float:
        powers = np.exp(inverse * (logits - logits.max(axis=1, keepdims=True)))
        shares = powers / powers.sum(axis=1, keepdims=True)
        return (shares * logits).sum(axis=1).mean() - wanted

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    for _ in range(60):  # exhausts the precision of a float64
        middle = np.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(np.clip(1 / middle, *TEMPERATURES))
