"""The person model of a run in a file, or inside an exported model: a NumPy archive."""

import io
from dataclasses import fields

import numpy as np

from emotion.errors import DamagedFile
from emotion.evaluation.learning_curve import ARCHIVE_ERRORS
from emotion.models.person_model import PersonModel

PERSON_FILE = "person.npz"


def person_to_bytes(model: PersonModel) -> bytes:
    """Return a NumPy archive with the values of a person model, all float64."""
    buffer = io.BytesIO()
    np.savez(buffer, **{field.name: getattr(model, field.name) for field in fields(model)})
    return buffer.getvalue()


def person_from_bytes(content: bytes, source: str) -> PersonModel:
    """Read what `person_to_bytes` returned.

    Raises:
        DamagedFile: it is damaged or foreign; names the source.
    """
    names = {field.name for field in fields(PersonModel)}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            values = dict(arrays)
        num_features, size = values["projection"].shape
        shapes = {
            "projection": (num_features, size),
            "lift": (size, num_features),
            "center": (num_features,),
            "means": (len(values["means"]), size),
            "temperature": (),
            "alone": (),
        }
        for name in names:
            array = values[name]
            if array.dtype != np.float64 or array.shape != shapes.get(name, (size,)):
                raise ValueError(f"{name} has the shape {array.shape}, {array.dtype}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has values that are not finite")
        if values.keys() != names:
            raise ValueError("it has other arrays than those of a person model")
    except ARCHIVE_ERRORS as error:
        raise DamagedFile(f"{source} is damaged or no person model: {error}") from None
    numbers = {name: float(values[name]) for name in ("temperature", "alone")}
    return PersonModel(**values | numbers)
