"""Download the clips of a data set as a ZIP from Google Drive.

The ZIP need not be trusted: it is checked before the first byte is unpacked, and each file again
while it is unpacked. Unfinished files have hidden names beside the data set's folder:

    .<folder>-<id>.zip                  downloaded; removed once it is unpacked
    .<folder>-<id>.zip<8 letters>.part  partial download, which gdown resumes
    .<folder>-<id>.unpacking/           partly unpacked; the next run starts again
    .<folder>-<id>.lock                 held while a run downloads or unpacks
"""

import logging
import posixpath
import re
import shutil
import stat
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from filelock import FileLock, Timeout

from emotion.clips.naming import VIDEO_SUFFIXES
from emotion.errors import UserError
from emotion.progress import progress_bar

log = logging.getLogger(__name__)

MAX_MEMBERS = 100_000
MAX_BYTES = 100 * 2**30  # of the ZIP, and of its unpacked files: some 100,000 short clips
MAX_RATIO = 50  # of unpacked to packed bytes: video is near 1, the maximum of deflate is 1032
CHUNK_BYTES = 2**20
TIMEOUT_S = (10, 60)  # to connect, and to wait for the next byte
RETRIES = 2  # after network failures; gdown waits up to 1 and 2 s between them


def fetch_clips(root: Path, download_id: str) -> None:
    """Download the clips of a data set, unless its folder exists.

    The folder appears when all clips are in it. An interrupted run is resumed; a second run at the
    same time waits for the first.

    Raises:
        UserError: if there is no id, or the ZIP cannot be downloaded or fails a check.
    """
    if root.exists():
        return
    if not download_id:
        raise UserError(
            f"no folder {root}: put the clips there, set data.root=DIR, or set "
            "DATASET_DOWNLOAD_ID in .env to download them"
        )
    if not re.fullmatch(r"[\w-]+", download_id, re.ASCII):
        raise UserError(
            "DATASET_DOWNLOAD_ID must be the part of a Google Drive link between /d/ and /view, or "
            f"after id=, got {download_id!r}"
        )
    archive = root.with_name(f".{root.name}-{download_id}.zip")  # another id, another file
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(archive.with_suffix(".lock"))
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            log.info("another run is downloading these clips; waiting for it")
            held = lock.acquire()
        with held:
            if not root.exists():  # else another run has downloaded it in the meantime
                download(archive, download_id, root)
                unpack(archive, root)
                archive.unlink()
            Path(lock.lock_file).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"the clips cannot be downloaded into {root} ({error}): solve this and run the same "
            "command again, which resumes the download"
        ) from None


def download(archive: Path, download_id: str, root: Path) -> None:
    """Download a file from Google Drive, or its missing rest, unless it exists."""
    if archive.exists():
        return
    import gdown  # takes 0.16 s, which runs that have their clips need not spend
    from gdown.exceptions import DownloadError, FileURLRetrievalError

    log.info("downloading the clips of %s from Google Drive, id %s", root, download_id)
    by_hand = f"or put the clips into {root} yourself"
    try:
        gdown.download(
            id=download_id,
            output=str(archive),
            resume=True,
            use_cookies=False,  # they would be read from and written to the home folder
            timeout=TIMEOUT_S,
            retries=RETRIES,
            progress=refuse_large,
        )
    except FileURLRetrievalError as error:
        reason = one_line(error.__context__ or error)  # gdown wraps it into a paragraph
        raise UserError(
            f"Google Drive refuses the file of DATASET_DOWNLOAD_ID={download_id} ({reason}): share "
            f"it with anyone who has the link, or wait a day if its quota is exceeded, {by_hand}"
        ) from None
    except (DownloadError, OSError) as error:  # network errors are OSErrors
        reason = str(error).partition("\n")[0]  # without gdown's own advice
        if innermost := re.search(r"Caused by (.*)\)$", reason):  # of the errors requests nests
            reason = innermost[1]
        partial = " ".join(map(str, archive.parent.glob(f"{archive.name}*.part")))
        raise UserError(
            f"the download from Google Drive failed ({reason}): run the same command again later"
            f"{f' to resume {partial}' if partial else ''}, {by_hand}"
        ) from None


def refuse_large(num_bytes: int, total_bytes: int | None) -> None:
    """Stop a download that exceeds `MAX_BYTES`, or will."""
    if max(num_bytes, total_bytes or 0) > MAX_BYTES:
        raise UserError(
            f"the file of DATASET_DOWNLOAD_ID has more than {MAX_BYTES / 2**30:.0f} GiB: check the "
            "id, or download larger data sets yourself"
        )


def unpack(archive: Path, root: Path) -> None:
    """Unpack a ZIP with clips, if all its files pass the checks.

    The common folder of all clips in the ZIP becomes `root`, which appears when it is
    complete. Files outside the common folder and hidden files are skipped.
    """
    folder = archive.with_suffix(".unpacking")
    try:
        with ZipFile(archive) as zipped:
            check_members(zipped, archive.stat().st_size)
            clips = clip_members(zipped)
            shutil.rmtree(folder, ignore_errors=True)  # of a killed run
            folder.mkdir()
            with progress_bar("unpacking clips", len(clips)) as advance:
                for path, member in clips.items():
                    unpack_member(zipped, member, folder / path)
                    advance()
        folder.rename(root)
    except (BadZipFile, NotImplementedError, ValueError) as error:
        # zipfile raises ValueError for impossible offsets, NotImplementedError for new versions
        raise UserError(
            f"{archive} is not unpacked: {one_line(error)}. Check DATASET_DOWNLOAD_ID; remove the "
            "file to download it again"
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_members(zipped: ZipFile, size_bytes: int) -> None:
    """Check the directory of a ZIP of this size, or raise a BadZipFile.

    Comparing the sum of all files with the ZIP's size also detects bombs whose files share their
    packed bytes (Fifield, *A better zip bomb*, WOOT 2019).
    """
    members = zipped.infolist()
    if len(members) > MAX_MEMBERS:
        raise BadZipFile(f"it holds {len(members)} files, more than {MAX_MEMBERS}")
    for member in members:
        if flaw := flaw_of(member):
            raise BadZipFile(f"{member.orig_filename!r} in it {flaw}")
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_BYTES:
        raise BadZipFile(
            f"it unpacks to {unpacked / 2**30:.0f} GiB, more than {MAX_BYTES / 2**30:.0f} GiB"
        )
    if unpacked > MAX_RATIO * size_bytes:
        largest = max(members, key=lambda member: member.file_size).orig_filename
        raise BadZipFile(
            f"it unpacks to {unpacked / size_bytes:.0f} times its size, more than the limit of "
            f"{MAX_RATIO}; its largest file is {largest!r}"
        )


def flaw_of(member: ZipInfo) -> str | None:
    """Return why a file must not be unpacked; None if it may.

    >>> flaw_of(ZipInfo("clips/../../Happy_0001.mp4"))
    'has .. in its path'
    """
    name = member.orig_filename  # zipfile truncates `filename` at a null byte
    windows = PureWindowsPath(name)  # splits at both slashes, and recognizes drives and shares
    if windows.anchor:
        return "has an absolute path"
    if ".." in windows.parts:
        return "has .. in its path"
    if "\\" in name or "\0" in name:
        return "has a backslash or a null byte in its name"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"  # by its Unix mode; 0 if packed on another system
    if member.header_offset < 0:
        return "starts before the ZIP does"  # the first part of the ZIP is missing
    if member.flag_bits & 1:
        return "is encrypted"
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        # zipfile unpacks others a whole block at a time: gigabytes of memory for a bomb
        return "is not stored or packed by deflate"
    return None


def clip_members(zipped: ZipFile) -> Mapping[PurePosixPath, ZipInfo]:
    """Return the files in the common folder of the clips, by their paths below it."""
    files: dict[PurePosixPath, ZipInfo] = {}
    for member in zipped.infolist():
        path = PurePosixPath(member.filename)
        # macOS packs ._Happy_0001.mp4 and .DS_Store, which find_clips ignores
        hidden = not path.parts or any(name.startswith(".") for name in path.parts)
        if hidden or member.is_dir():
            continue
        if path in files:
            raise BadZipFile(f"{member.filename!r} is in it twice")
        files[path] = member
    for path in files:
        if any(parent in files for parent in path.parents):
            raise BadZipFile(f"{str(path)!r} in it lies in a file, not in a folder")
    folders = [str(path.parent) for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if not folders:
        raise BadZipFile(f"it holds no video files ({', '.join(sorted(VIDEO_SUFFIXES))})")
    top = PurePosixPath(posixpath.commonpath(folders))
    below = {path.relative_to(top): m for path, m in files.items() if path.is_relative_to(top)}
    if others := len(files) - len(below):
        log.info("skipped %d files outside %s/ of the ZIP", others, top)
    return below


def unpack_member(zipped: ZipFile, member: ZipInfo, path: Path) -> None:
    """Unpack one file; raise a BadZipFile if its size or checksum differ from the directory's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    try:
        with zipped.open(member) as packed, open(path, "xb") as file:
            while chunk := packed.read(CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:  # the declared size, and so the checked sum, was wrong
                    break
                file.write(chunk)
    except (zlib.error, EOFError, NotImplementedError) as error:
        raise BadZipFile(f"{member.filename!r} in it is damaged: {error}") from None
    if left:
        raise BadZipFile(f"{member.filename!r} in it does not have its declared size")


def one_line(error: BaseException) -> str:
    """Return an error's message in one line."""
    return " ".join(str(error).split())
