"""Correct the emotion of a clip in a person's profile, or forget the clip.

python -m emotion.inference.correct me.json clip.mp4 Sad      the clip shows this emotion
python -m emotion.inference.correct me.json clip.mp4 --forget the profile forgets the clip
"""

from emotion.stopping import stop_on_signals

if __name__ == "__main__":  # before the other imports, which take a second
    stop_on_signals("stopped; the profile is as it was")

import argparse
from pathlib import Path

from emotion.cli import mistakes_in_one_line
from emotion.clips.video import VideoError
from emotion.errors import UserError
from emotion.files import file_digest
from emotion.inference.profile import Profile, change_profile
from emotion.inference.recognizer import EmotionRecognizer


def correct(path: Path, clip: Path, label: str | None, model: str) -> Profile:
    """Set the emotion of a clip in a profile; None forgets the clip.

    A clip that is in the profile is not decoded again. The model, see `EmotionRecognizer.load`, is
    loaded for others.

    Raises:
        UserError: the label is none of the model's, or a file is missing or damaged.
    """
    if not clip.is_file():
        raise UserError(f"{clip}: no such file")
    clip_id = file_digest(clip)
    profile = Profile.read(path) if path.exists() else None
    if label is None:
        if profile is None or clip_id not in profile.clips:
            raise UserError(f"{path} does not have {clip}")
        return change_profile(path, profile, lambda profile: profile.forget(clip_id))
    if profile is not None and clip_id in profile.clips:
        features = profile.clips[clip_id].features
        return change_profile(path, profile, lambda each: each.observe(clip_id, features, label))
    recognizer = EmotionRecognizer.load(model, person=path)
    try:
        recognizer.observe(clip, label)
    except VideoError as error:
        raise UserError(f"{clip}: {error}") from None
    return recognizer.profile


def main() -> None:
    """Correct the clip that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m emotion.inference.correct",
        description="Correct the emotion of a clip in a person's profile, or forget the clip.",
    )
    parser.add_argument("profile", type=Path, help="its file; a new one is begun")
    parser.add_argument("clip", type=Path, help="a clip of the person")
    parser.add_argument("emotion", nargs="?", help="one of the model's labels")
    parser.add_argument("--forget", action="store_true", help="remove the clip instead")
    parser.add_argument(
        "--model", default="starter", help="of the profile: as model_path (%(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.forget == (arguments.emotion is not None):
        parser.error("give an emotion, or --forget")
    with mistakes_in_one_line():
        profile = correct(
            arguments.profile.expanduser(),
            arguments.clip.expanduser(),
            arguments.emotion,
            arguments.model,
        )
        print(f"{arguments.profile}: {profile.counts}")


if __name__ == "__main__":
    main()
