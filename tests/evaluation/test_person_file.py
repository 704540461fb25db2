"""The file of a person model: it gives back every bit, and any damage is an error of one line."""

import io
import re

import numpy as np
import pytest

from emotion.errors import DamagedFile
from emotion.evaluation.learning_curve import fit_clips
from emotion.evaluation.person_file import person_from_bytes, person_to_bytes
from tests.evaluation.people import synthetic_people


@pytest.fixture(scope="module")
def content() -> bytes:
    return person_to_bytes(fit_clips(synthetic_people(0)))


def changed(content: bytes, **arrays: np.ndarray | None) -> bytes:
    """Replace arrays, or remove those that are None."""
    with np.load(io.BytesIO(content)) as kept:
        values = {k: v for k, v in (dict(kept) | arrays).items() if v is not None}
    buffer = io.BytesIO()
    np.savez(buffer, **values)
    return buffer.getvalue()


def test_it_gives_back_every_bit(content: bytes):
    model, read = fit_clips(synthetic_people(0)), person_from_bytes(content, "file")
    clips = synthetic_people(1).features
    no_clips = clips[:0], np.zeros(0, int)
    np.testing.assert_array_equal(
        read.adapt(*no_clips).probabilities(clips), model.adapt(*no_clips).probabilities(clips)
    )
    assert person_to_bytes(read) == content


def test_damage_is_an_error_of_one_line(content: bytes):
    damaged = [
        b"",
        content[: len(content) // 2],
        b"PK" + content,
        re.sub(rb"(PK\x01\x02.{4}).", rb"\1" + b"\x01", content, flags=re.DOTALL),  # encrypted
        changed(content, means=None),
        changed(content, more=np.zeros(1)),
        changed(content, noise=np.array([np.nan, 1, 1, 1])),
        changed(content, center=np.zeros(3)),
        changed(content, projection=np.zeros(4)),
        changed(content, temperature=np.array(1)),
        changed(content, means=np.array([{}, {}, {}])),  # would run code to be read
    ]
    for place, each in enumerate(damaged):
        with pytest.raises(DamagedFile, match="the file") as error:
            person_from_bytes(each, f"the file {place}")
        assert "\n" not in str(error.value)
