"""Train and evaluate one model, or sweep many: python train.py -m model=... interval=..."""

from emotion.commands import run_train

if __name__ == "__main__":
    run_train()
