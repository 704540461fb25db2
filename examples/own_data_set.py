"""Train a model on a data set of your own, without a config file.

python examples/own_data_set.py CLIPS    # bored_01.mp4, proud_01.mp4, ...: <class>_<id>.mp4
"""

import subprocess
import sys
from pathlib import Path


def main(clips: str, *overrides: str) -> None:
    """Train on a folder of clips whose names begin with their class."""
    labels = sorted({path.stem.partition("_")[0] for path in Path(clips).glob("*_*.*")})
    command = [sys.executable, "-m", "emotion.commands.train", "data=mine", f"data.root={clips}"]
    command += [f"data.labels=[{','.join(labels)}]", "experiment=small", *overrides]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
