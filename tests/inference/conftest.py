"""Clips of the demo."""

from pathlib import Path

import pytest

from tests.caches import BuildableCache


@pytest.fixture
def happy(demo_cache: BuildableCache) -> Path:
    return demo_cache.root / "Happy_0001.mp4"


@pytest.fixture
def sad(demo_cache: BuildableCache) -> Path:
    return demo_cache.root / "Sad_0001.mp4"
