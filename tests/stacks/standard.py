"""The default settings, as `conf/stacks.yaml` has them."""

from emotion.stacks.settings import CacheSettings

STANDARD = CacheSettings(
    min_frames=75,
    segment_frames=90,
    interval=5,
    by="frames",
    start="clip",
    min_face_fraction=0.5,
    tracking="sampled",
    follow="largest",
    margin=0.1,
    align=False,
    size_px=224,
    min_confidence=0.5,
    fit="box",
)
