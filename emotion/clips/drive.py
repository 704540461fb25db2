"""Fetch clips: a ZIP on Google Drive becomes the folder of a data set.

Stands before the way of the data, as `emotion/clips/demo.py` does: it fills the folder in which
`emotion/clips/naming.py` then finds clips. Who shares a ZIP need not be trusted: all of it
is checked before the first byte is unpacked, and each file again while it is.
What is not whole has a hidden name beside the folder:

    .<folder>-<id>.zip                  fetched, removed once it is unpacked
    .<folder>-<id>.zip<8 letters>.part  half fetched; gdown goes on with it
    .<folder>-<id>.unpacked/            half unpacked; the next run begins it anew
    .<folder>-<id>.lock                 held by the run that is at work here; stays if it fails
"""

import logging
import posixpath
import re
import shutil
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from emotion.clips.naming import VIDEO_SUFFIXES
from emotion.errors import UserError
from emotion.progress import ProgressBar

log = logging.getLogger(__name__)

MAX_MEMBERS = 100_000
MAX_BYTES = 100 * 2**30  # of the ZIP, and of all that it unpacks to: some 100,000 short clips
MAX_RATIO = 50  # of unpacked to packed bytes: video is near 1, deflate at its utmost 1032
CHUNK_BYTES = 2**20
TIMEOUT_S = (10, 60)  # to connect to an address, and to wait for the next byte
RETRIES = 2  # where the network fails; gdown waits 1 and 2 s at most between them


def fetch_clips(root: Path, download_id: str) -> None:
    """Fetch the clips of a data set, unless its folder exists.

    The folder appears in one step when all clips are in it. A run that was stopped or cut off is
    taken up where it was; a second run at the same time waits for the first.

    Args:
        root: the folder of the clips.
        download_id: the id of a ZIP on Google Drive; "" for none.

    Raises:
        UserError: the folder is missing and there is no id, the ZIP can't be had, or it holds what
            it must not.
    """
    if root.exists():
        return
    if not download_id:
        raise UserError(
            f"no folder {root}: put the clips there, set data.root=DIR, or set "
            "DATASET_DOWNLOAD_ID in .env to fetch them"
        )
    if not re.fullmatch(r"[\w-]+", download_id, re.ASCII):
        raise UserError(
            f"DATASET_DOWNLOAD_ID={download_id} is no id: of a link to Google Drive, "
            "it is what stands between /d/ and /view, or after id="
        )
    archive = root.with_name(f".{root.name}-{download_id}.zip")  # another id, another file
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with locked(archive.with_suffix(".lock")):
            if not root.exists():  # or another run has fetched it while this one waited
                download(archive, download_id, root)
                unpack(archive, root)
                archive.unlink()
    except OSError as error:
        raise UserError(
            f"the clips can't be fetched into {root} ({error}): "
            "mend that and give the same command again, which goes on where this one stopped"
        ) from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that no other process can hold; wait for it.

    The system lets go of it however the process ends.

    Args:
        path: the lock's file; removed when the work is done, left when it failed.
    """
    import fcntl  # Windows has none, and needs it only to fetch

    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another run is fetching these clips; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
        path.unlink(missing_ok=True)


def download(archive: Path, download_id: str, root: Path) -> None:
    """Download a file from Google Drive, or what is missing of it.

    Args:
        archive: the file to write; if it exists, it is whole.
        download_id: its id on Google Drive.
        root: the folder that a message names for clips that come another way.

    Raises:
        UserError: Google Drive can't be reached or does not give it out, or it is too large.
    """
    if archive.exists():
        return
    import gdown  # 0.16 s, which all runs that have their clips are spared
    from gdown.exceptions import DownloadError, FileURLRetrievalError

    log.info("fetching the clips of %s from Google Drive, id %s", root, download_id)
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
            f"Google Drive does not give out the file of DATASET_DOWNLOAD_ID={download_id} "
            f"({reason}): share it with anyone who has the link, or wait a day if it was fetched "
            f"too often, or put the clips into {root} yourself"
        ) from None
    except (DownloadError, OSError) as error:  # the network's errors are OSErrors
        reason = str(error).partition("\n")[0]  # without gdown's own advice
        if innermost := re.search(r"Caused by (.*)\)$", reason):  # of what requests nests
            reason = innermost[1]
        parts = " ".join(map(str, archive.parent.glob(f"{archive.name}*.part")))
        kept = f"it goes on with {parts}; remove that to begin anew" if parts else "nothing is lost"
        raise UserError(
            f"Google Drive can't be reached, or broke off ({reason}): give the same command again "
            f"later ({kept}), or put the clips into {root} yourself"
        ) from None


def refuse_large(num_bytes: int, total_bytes: int | None) -> None:
    """Stop a download that is, or says it will be, too large.

    Raises:
        UserError: as it says.
    """
    if max(num_bytes, total_bytes or 0) > MAX_BYTES:
        raise UserError(
            f"the file of DATASET_DOWNLOAD_ID has more than {MAX_BYTES / 2**30:.0f} GiB: "
            "look whether the id is right; larger sets have to be put into place by hand"
        )


def unpack(archive: Path, root: Path) -> None:
    """Make a folder of a ZIP with clips, if everything in the ZIP is as it should be.

    The folder that all clips of the ZIP share becomes `root`. What lies outside it, and hidden
    files, stay packed.

    Args:
        archive: the ZIP.
        root: the folder to make. It appears when all files are in it.

    Raises:
        UserError: the ZIP is damaged or hostile; names the file in it, and why.
        OSError: the folder can't be written.
    """
    folder = archive.with_suffix(".unpacking")
    try:
        with ZipFile(archive) as zipped:
            check_members(zipped, archive.stat().st_size)
            clips = clip_members(zipped)
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
            folder.mkdir()
            with ProgressBar("unpacking clips", len(clips)) as bar:
                for path, member in clips.items():
                    unpack_member(zipped, member, folder / path)
                    bar.advance()
        folder.rename(root)
    except (BadZipFile, NotImplementedError, ValueError) as error:
        # ValueError is zipfile's word for a place that can't be, NotImplementedError for a version
        raise UserError(
            f"{archive} is not unpacked: {one_line(error)}. Look whether DATASET_DOWNLOAD_ID is "
            "right; remove the file to fetch it again"
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_members(zipped: ZipFile, size_bytes: int) -> None:
    """Check all that a ZIP says of its files.

    Args:
        zipped: the ZIP.
        size_bytes: its own size. Measuring all files together against it also finds bombs whose
            files share their packed bytes (Fifield, *A better zip bomb*, WOOT 2019).

    Raises:
        BadZipFile: names the file that must not be unpacked, or the bound that is passed.
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
            f"it unpacks to {unpacked / size_bytes:.0f} times its size, more than the "
            f"{MAX_RATIO} that clips could need; its largest file is {largest!r}"
        )


def flaw_of(member: ZipInfo) -> str | None:
    """Say why a file must not be unpacked; None if it may.

    >>> flaw_of(ZipInfo("clips/../../Happy_0001.mp4"))
    'has .. in its path'
    """
    name = member.orig_filename  # `filename` ends where zipfile found a null byte
    windows = PureWindowsPath(name)  # splits at both slashes, and knows drives and shares
    if windows.anchor:
        return "has an absolute path"
    if ".." in windows.parts:
        return "has .. in its path"
    if "\\" in name or "\0" in name:
        return "has a backslash or a null byte in its name"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"  # by its Unix mode; 0 where another system packed it
    if member.header_offset < 0:
        return "would begin before the ZIP does"  # its first part is missing
    if member.flag_bits & 1:
        return "is encrypted"
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        # zipfile unpacks the others a whole block at a time: gigabytes of memory in a bomb
        return "is packed by another method than deflate"
    return None


def clip_members(zipped: ZipFile) -> Mapping[PurePosixPath, ZipInfo]:
    """Choose what to unpack: all files in the folder that the clips share.

    Args:
        zipped: a ZIP that is checked.

    Returns:
        The files by their paths below that folder.

    Raises:
        BadZipFile: there are no clips, or two files would be in one place.
    """
    files: dict[PurePosixPath, ZipInfo] = {}
    for member in zipped.infolist():
        path = PurePosixPath(member.filename)
        # macOS packs ._Happy_0001.mp4 and .DS_Store, which find_clips would not see
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
        log.info("%d files outside %s/ of the ZIP stay packed", others, top)
    return below


def unpack_member(zipped: ZipFile, member: ZipInfo, path: Path) -> None:
    """Unpack one file, and see that it is what the ZIP says of it.

    Args:
        zipped: the ZIP.
        member: its file.
        path: where to write.

    Raises:
        BadZipFile: the checksum differs, the size does, or it can't be unpacked.
        OSError: it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    try:
        with zipped.open(member) as packed, open(path, "xb") as file:
            while chunk := packed.read(CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:  # the size was a lie, and so was the sum that was checked
                    break
                file.write(chunk)
    except (zlib.error, EOFError, NotImplementedError) as error:
        raise BadZipFile(f"{member.filename!r} in it is damaged: {error}") from None
    if left:
        raise BadZipFile(f"{member.filename!r} in it has not the size that it says")


def one_line(error: BaseException) -> str:
    """Put an error's words into one line."""
    return " ".join(str(error).split())
