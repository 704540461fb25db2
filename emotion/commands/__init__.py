"""The commands: `python train.py` in a checkout, `emotion-train` where the package is installed.

Imports little: signals are handled before the other imports, which take a second.
"""

from emotion.stopping import stop_on_signals


def run_train() -> None:
    """Train one model or sweep many, as `train.py` and `emotion-train` do."""
    stop_on_signals(
        "stopped; finished work is kept: hydra.run.dir=DIR ckpt_path=last resumes a run, and "
        "sweep=NAME a sweep"
    )
    from emotion.commands.train import train
    from emotion.training.ranks import end_with_main_process

    end_with_main_process()
    train()


def run_preprocess() -> None:
    """Cut clips into stacks, as `preprocess.py` and `emotion-preprocess` do."""
    stop_on_signals("stopped; finished clips are kept, and the same command resumes")
    from emotion.commands.preprocess import preprocess

    preprocess()


def run_predict() -> None:
    """Predict emotions, as `predict.py` and `emotion-predict` do."""
    stop_on_signals("stopped; the answers so far are in the output folder")
    from emotion.commands.predict import predict

    predict()


def run_evaluate() -> None:
    """Score a model on labeled clips, as `evaluate.py` and `emotion-evaluate` do."""
    stop_on_signals("stopped; nothing was scored")
    from emotion.commands.evaluate import evaluate

    evaluate()
