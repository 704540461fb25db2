"""Download the clips of a data set as a ZIP from Google Drive.

The ZIP is checked before the first byte is unpacked, and each file again while it is unpacked.
Unfinished files have hidden names beside the data set's folder.
"""

import logging
import posixpath
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from filelock import FileLock

from emotion.clips.naming import VIDEO_SUFFIXES
from emotion.errors import UserError
from emotion.files import ZIP_ERRORS, digest
from emotion.progress import progress_bar, terminal_bar

log = logging.getLogger(__name__)

MAX_MEMBERS = 100_000
MAX_BYTES = 100 * 2**30  # of the ZIP, and of its unpacked files: some 100,000 short clips
MAX_RATIO = 50  # of unpacked to packed bytes: video is near 1, the maximum of deflate is 1032
TIMEOUT_S = (10, 60)  # to connect, and to wait for the next byte
RETRIES = 2  # after network failures; gdown waits up to 1 and 2 s between them


def fetch_clips(root: Path, download_id: str) -> None:
    """Download the clips of a data set, unless its folder exists; it appears when it is complete.

    An interrupted run is resumed; a second run at the same time waits for the first.

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
            "after id=, of letters, digits, - and _"
        )
    # Each id has its own file. The name holds its digest, because the id alone gives access.
    archive = root.with_name(f".{root.name}-{digest(download_id.encode())[:8]}.zip")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(archive.with_suffix(".lock")) as lock:
            if not root.exists():  # else another run has downloaded it in the meantime
                download(archive, download_id, root)
                put_aside_unless_zip(archive)
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

    log.info("downloading the clips of %s from Google Drive", root)
    bar = terminal_bar()
    task = bar.add_task("downloading MiB", total=None, speed="")

    def progress(num_bytes: int, total_bytes: int | None) -> None:
        refuse_large(num_bytes, total_bytes)
        bar.update(task, completed=num_bytes >> 20, total=total_bytes and total_bytes >> 20)

    try:
        with bar:
            gdown.download(
                id=download_id,
                output=str(archive),
                resume=True,
                use_cookies=False,  # they would be read from and written to the home folder
                timeout=TIMEOUT_S,
                retries=RETRIES,
                progress=progress,
                quiet=True,  # else it prints the id
            )
    except (FileURLRetrievalError, DownloadError, OSError) as error:  # OSErrors of the network
        cause: BaseException = error
        while cause.__context__:  # the libraries wrap it into paragraphs
            cause = cause.__context__
        reason = one_line(cause).replace(download_id, "...")
        raise UserError(
            f"the file of DATASET_DOWNLOAD_ID cannot be downloaded ({reason}): share it "
            "with anyone who has the link, run the same command again later, which resumes the "
            f"download, or put the clips into {root} yourself"
        ) from None


def put_aside_unless_zip(archive: Path) -> None:
    """Rename a download that is no ZIP, such as a page of Drive's, and raise a UserError."""
    with open(archive, "rb") as file:
        if file.read(2) == b"PK":
            return
    aside = archive.replace(archive.with_suffix(".not-a-zip"))
    raise UserError(
        f"the file of DATASET_DOWNLOAD_ID is no ZIP, see {aside}: check the id, or wait a "
        "day if it is a page about a quota. The next start downloads again"
    )


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
    except ZIP_ERRORS as error:
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
        raise BadZipFile(
            f"it unpacks to {unpacked / size_bytes:.0f} times its size, more than {MAX_RATIO}"
        )


def flaw_of(member: ZipInfo) -> str | None:
    """Return why a file must not be unpacked; None if it may.

    >>> member = ZipInfo("clips/../../Happy_0001.mp4")
    >>> member.header_offset = 0
    >>> flaw_of(member)
    'has .. in its path'
    """
    name = member.orig_filename  # zipfile truncates `filename` at a null byte
    windows = PureWindowsPath(name)  # splits at both slashes, and recognizes drives and shares
    flaws = {
        "has an absolute path": windows.anchor,
        "has .. in its path": ".." in windows.parts,
        "has a backslash or a null byte in its name": "\\" in name or "\0" in name,
    }
    return first_found(flaws) or kind_flaw_of(member)


def kind_flaw_of(member: ZipInfo) -> str | None:
    """Return why a file must not be unpacked under any name; None if it may."""
    mode = stat.S_IFMT(member.external_attr >> 16)  # of Unix; 0 if packed on another system
    # zipfile unpacks other methods a whole block at a time: gigabytes of memory for a bomb
    is_known_method = member.compress_type in (ZIP_STORED, ZIP_DEFLATED)
    flaws = {
        "is a link or a device": mode not in (0, stat.S_IFREG, stat.S_IFDIR),
        "starts before the ZIP does": member.header_offset < 0,  # the ZIP's first part is missing
        "is encrypted": member.flag_bits & 1,
        "is not stored or packed by deflate": not is_known_method,
    }
    return first_found(flaws)


def first_found(flaws: Mapping[str, object]) -> str | None:
    """Return the first key whose value is true, None if there is none."""
    return next((flaw for flaw, is_found in flaws.items() if is_found), None)


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
    try:
        with zipped.open(member) as packed, open(path, "xb") as file:
            shutil.copyfileobj(packed, file)  # zipfile stops at the declared size
    except ZIP_ERRORS as error:
        raise BadZipFile(f"{member.filename!r} in it is damaged: {error}") from None
    if path.stat().st_size != member.file_size:
        raise BadZipFile(f"{member.filename!r} in it does not have its declared size")


def one_line(error: BaseException) -> str:
    """Return an error's message in one line."""
    return " ".join(str(error).split())
