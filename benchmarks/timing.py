"""Time functions that take turns, so that other load on the machine slows all of them."""

import time
from collections.abc import Callable, Mapping

import numpy as np


def medians_s(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    pause_s: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Call each function once to warm up, then in turn; return its median time in seconds."""
    times_s: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(1 + rounds):
        for name, function in functions.items():
            time.sleep(pause_s)
            start_s = clock()
            function()
            times_s[name].append(clock() - start_s)
    return {name: float(np.median(values[1:])) for name, values in times_s.items()}
