"""The list of a cache's stacks: one row each, in one CSV file beside them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath

from emotion.tables import read_table, write_table


@dataclass(frozen=True)
class StackRow:
    """What is known of one stack.

    Attributes:
        stack: path of the TIFF, relative to the cache, with `/`.
        clip: id of the clip that it was cut from.
        segment: counted from 1 in the clip.
        label: the class.
        subject: who is seen, or "".
        split: `train`, `val` or `test`; "" if the data set has no split of its own.
        num_frames: frames of the clip in the segment; fewer than a segment's in a tail.
        num_faces: the most that were seen at once; they are counted in the first image, in every
            18th, and wherever the face was lost before.
        has_face: T letters, `1` where the image is a crop of its own frame and `0` where another
            stands in, for want of a face or of a frame.
        face_frames: how many of the sampled frames show a face.
        sampled_frames: how many frames were sampled; fewer than T in a tail.
        fps: frames per second by the clip's header; 0 where it says nothing.
    """

    stack: str
    clip: str
    segment: int
    label: str
    subject: str
    split: str
    num_frames: int
    num_faces: int
    has_face: str
    face_frames: int
    sampled_frames: int
    fps: float

    @property
    def crop_found(self) -> list[bool]:
        """`has_face` as T truth values."""
        return [letter == "1" for letter in self.has_face]

    @property
    def landmarks(self) -> str:
        """Path of its landmarks, relative to the cache: landmarks/x.npy for stacks/x.tiff."""
        below = PurePosixPath(self.stack).relative_to("stacks")
        return ("landmarks" / below.with_suffix(".npy")).as_posix()


def write_manifest(path: Path, rows: Iterable[StackRow]) -> None:
    """Write a manifest, whole or not at all.

    Args:
        path: the CSV file.
        rows: in the order in which they shall stand.
    """
    write_table(path, [field.name for field in fields(StackRow)], map(asdict, rows))


def read_manifest(path: Path) -> list[StackRow]:
    """Read what `write_manifest` wrote.

    Args:
        path: the CSV file.

    Returns:
        The rows, in their order.
    """
    kinds = {field.name: field.type for field in fields(StackRow)}
    return [
        StackRow(**{name: kinds[name](value) for name, value in row.items()})
        for row in read_table(path)
    ]
