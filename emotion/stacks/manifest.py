"""The manifest: one row for each stack of a cache, in a CSV file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StackRow:
    """The manifest row of one stack; `label`, `subject` and `split` are those of its `Clip`.

    `has_face` has T characters, `1` where the image is a crop of its own frame and `0` where
    another image replaces it because its face or its frame is missing. `num_faces` is the maximum
    number of faces seen at once, counted in the first image, every 18th, and after a face was lost.
    """

    stack: str  # path of the TIFF, relative to the cache, with `/`
    clip: str
    segment: int  # counted from 1 in the clip
    label: str
    subject: str
    split: str
    num_frames: int  # in the segment; fewer in a tail
    num_faces: int
    has_face: str
    face_frames: int
    sampled_frames: int  # fewer than T in a tail
    fps: float  # by the clip's header; 0 if unknown
    stack_digest: str  # SHA-256 of the TIFF
    landmarks_digest: str
    blendshapes_digest: str

    @property
    def crop_found(self) -> list[bool]:
        """`has_face` as T booleans."""
        return [letter == "1" for letter in self.has_face]

    @property
    def landmarks(self) -> str:
        """Path of its landmarks, relative to the cache: landmarks/x.npy for stacks/x.tiff."""
        return self._beside("landmarks")

    @property
    def blendshapes(self) -> str:
        """Path of its blendshapes, relative to the cache."""
        return self._beside("blendshapes")

    def _beside(self, folder: str) -> str:
        return f"{folder}{self.stack.removeprefix('stacks').removesuffix('.tiff')}.npy"
