"""The order of an epoch, and how several processes share it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler


@dataclass(eq=False)
class SeededSampler(Sampler[tuple[int, int]]):
    """Draws the order of an epoch, and a seed of the augmentation of every stack, from one seed.

    Both are the same for any number of workers or processes, and after an interruption.
    """

    num_stacks: int
    seed: int
    shuffle: bool
    share: range  # of the order's places, for this process, see `share_of`
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that is drawn next; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.share)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the index of each stack and the seed of its augmentation."""
        generator = np.random.default_rng((self.seed, self.epoch))
        seeds = generator.integers(2**63, size=self.num_stacks)
        order = np.arange(self.num_stacks)
        if self.shuffle:
            generator.shuffle(order)
        for place in self.share:
            index = order[place % self.num_stacks]
            yield int(index), int(seeds[index])


def share_of(rank: int, world: int, num_stacks: int, batch_size: int, pad: bool) -> range:
    """Return the places in the order of an epoch that one of `world` processes takes.

    With `pad`, every process gets the same number of batches, which gradients need: if the last
    batch (of all processes) is smaller than `world`, places from `num_stacks` on are repetitions.

    >>> [list(share_of(rank, 2, 7, 4, pad=False)) for rank in (0, 1)]
    [[0, 2, 4, 6], [1, 3, 5]]
    """
    end = num_stacks
    if pad and 0 < num_stacks % batch_size < world:
        end += world - num_stacks % batch_size
    return range(rank, end, world)
