"""Compare two backbones of timm at two sampling intervals, on synthetic clips.

python examples/own_backbone.py
"""

import subprocess
import sys


def main(*overrides: str) -> None:
    """Sweep over backbones; any image model of timm has a name that fits."""
    command = [sys.executable, "-m", "emotion.commands.train", "-m", "experiment=demo"]
    command += ["model=timm", "model.backbone=convnext_atto,resnet10t"]
    subprocess.run([*command, "interval=10,15", *overrides], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
