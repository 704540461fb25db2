"""Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017)."""

import numpy as np

TEMPERATURES = (0.01, 100.0)  # at the upper one all classes are as good as equally probable


def best_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Find what logits are to be divided by for the true classes to be most probable.

    Minimises the mean negative log-likelihood with the targets smoothed by 1 / (N + 1): one stack
    more, of which every class is equally true (after Platt, "Probabilistic Outputs for Support
    Vector Machines", 1999). The slope over 1 / temperature never falls, so its zero is halved in.

    Args:
        logits: (N, C) float64, at least one row.
        targets: (N,) class indices.

    Returns:
        The temperature, within `TEMPERATURES`: the upper one where a model does no better than
        guessing; 1 where it gives all classes of every stack the same probability.
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
    for _ in range(60):  # a ratio of 10,000, halved to the last digit of a float64
        middle = np.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(np.clip(1 / middle, *TEMPERATURES))
