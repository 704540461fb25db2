"""Measure what the digests of a cache cost: python -m benchmarks.checks [KEY=VALUE ...].

Reads all stacks of a cache that exists, with and without the comparison of their digests, in
turn. Training compares each digest once in a process, in its first epoch. Overrides choose the
cache, such as data=mine.
"""

import sys
import time

from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from benchmarks.timing import medians_s
from emotion.cli import CONF_DIR
from emotion.stacks import cache as cache_module
from emotion.stacks.cache import Cache

ROUNDS = 5


def main() -> None:
    """Print the processor time of reading all stacks."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cache = Cache.from_config(compose("train", sys.argv[1:]))
    rows = cache.manifest()

    def read_all() -> None:
        for row in rows:
            cache.stack(row)

    def read_and_compare() -> None:
        cache_module._known.clear()
        read_all()

    functions = {"with the digests": read_and_compare, "without": read_all}
    times_s = medians_s(functions, ROUNDS, clock=time.process_time)
    table = Table("reading", "s", "ms a stack", title=f"{len(rows)} stacks, processor time")
    for name, time_s in times_s.items():
        table.add_row(name, f"{time_s:.2f}", f"{1000 * time_s / len(rows):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
