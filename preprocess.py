"""Cut a folder of clips into cached stacks: python preprocess.py data=demo."""

from emotion.commands import run_preprocess

if __name__ == "__main__":
    run_preprocess()
