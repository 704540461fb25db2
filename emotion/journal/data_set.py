"""The list of corrected clips, with which `data=journal` trains on them like on any other."""

import csv
from collections.abc import Iterable
from pathlib import Path

from emotion.files import unfinished
from emotion.journal.schema import Entry

LIST = "corrected.csv"


def write_list(entries: Iterable[Entry], folder: Path) -> None:
    """Write the list of `data=csv`: paths relative to the folder, and labels; atomically."""
    with unfinished(folder / LIST) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label"])
        for entry in entries:
            if entry.correction is not None:
                writer.writerow([f"clips/{entry.clip_name}", entry.correction])
