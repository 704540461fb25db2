"""Score a trained model on labeled clips: python evaluate.py model_path=RUN data=NAME."""

from emotion.commands import run_evaluate

if __name__ == "__main__":
    run_evaluate()
