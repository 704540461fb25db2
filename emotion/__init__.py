"""Emotion recognition from close-up face clips; docs/architecture.md describes the packages."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emotion.inference.recognizer import EmotionRecognizer

__all__ = ["EmotionRecognizer"]

REPOSITORY = Path(__file__).resolve().parents[1]  # where installed: site-packages
__version__ = "1.0.0"  # the only place; pyproject.toml reads it

for _module in ("flop_counter", "cpp_extension"):  # each warns on import where there is no GPU
    logging.getLogger(f"torch.utils.{_module}").setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    """Import `EmotionRecognizer`, and MediaPipe with it, when it is first used."""
    if name in __all__:
        from emotion.inference.recognizer import EmotionRecognizer

        return EmotionRecognizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
