"""Emotion recognition from close-up face clips; docs/architecture.md describes the packages."""

import logging
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emotion.inference.answer import Answer, to_dataframe
    from emotion.inference.recognizer import EmotionRecognizer

MODULES = {"EmotionRecognizer": "recognizer", "Answer": "answer", "to_dataframe": "answer"}
__all__ = ["Answer", "EmotionRecognizer", "to_dataframe"]

REPOSITORY = Path(__file__).resolve().parents[1]  # where installed: site-packages
__version__ = "1.0.0"  # the only place; pyproject.toml reads it

for _module in ("flop_counter", "cpp_extension"):  # each warns on import where there is no GPU
    logging.getLogger(f"torch.utils.{_module}").setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    """Import a name of `__all__`, and MediaPipe with it, when it is first used."""
    if name in MODULES:
        return getattr(import_module(f"emotion.inference.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
