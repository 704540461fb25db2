"""Downloading clips: a local Drive server, valid and hostile ZIPs, interrupted runs."""

import io
import re
import shutil
import stat
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import pytest
import requests
from omegaconf import DictConfig

from emotion.clips import drive as fetch
from emotion.clips.drive import fetch_clips, unpack
from emotion.errors import UserError
from emotion.stacks.build import CacheBuilder

ID = "1aB-c_D"
CLIPS = {  # noise, which cannot be compressed, like video
    f"{label}_0001.mp4": np.random.default_rng(seed).bytes(600_000)
    for seed, label in enumerate(("Happy", "Sad"))
}


def packed(members: Mapping[str, bytes], method: int = ZIP_DEFLATED) -> bytes:
    """Pack files into a ZIP under unchanged names."""
    file = io.BytesIO()
    with ZipFile(file, "w", method) as zipped:
        for name, content in members.items():
            info = ZipInfo(name)
            info.filename = info.orig_filename = name  # else zipfile normalizes it
            info.compress_type = method
            zipped.writestr(info, content)
    return file.getvalue()


def packed_with(name: str, **fields: int) -> bytes:
    """Pack the clips and one more file with changed fields of its `ZipInfo`."""
    file = io.BytesIO()
    with ZipFile(file, "w") as zipped:
        for clip, content in CLIPS.items():
            zipped.writestr(clip, content)
        info = ZipInfo(name)
        for field, value in fields.items():
            setattr(info, field, value)
        zipped.writestr(info, b"/etc/passwd")
    return file.getvalue()


def with_size(zipped: bytes, name: str, size: int) -> bytes:
    """Change the unpacked size of a file in a ZIP's directory."""
    entry = zipped.index(b"PK\x01\x02")
    while zipped[entry + 46 : entry + 46 + len(name)] != name.encode():
        entry = zipped.index(b"PK\x01\x02", entry + 1)
    return zipped[: entry + 24] + struct.pack("<L", size) + zipped[entry + 28 :]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "Dataset" / "Scrapping"


@pytest.fixture
def unpacked(root: Path) -> Callable[[bytes], dict[str, bytes]]:
    """Give a function that unpacks a ZIP and returns what the folder then holds."""

    def unpack_bytes(zipped: bytes) -> dict[str, bytes]:
        archive = root.parent / f".Scrapping-{ID}.zip"
        archive.parent.mkdir(exist_ok=True)
        archive.write_bytes(zipped)
        try:
            unpack(archive, root)
        finally:
            archive.unlink()
            assert list(root.parent.iterdir()) in ([], [root])  # nothing half-unpacked
            outside = [path for path in root.parent.parent.iterdir() if path != root.parent]
            assert outside == []
        return contents(root)

    return unpack_bytes


# Unpacking


@pytest.mark.parametrize("top", ["", "Scrapping/", "Dataset/Scrapping/", "./a b/ü/"])
def test_clips_are_unpacked_directly_into_the_folder(unpacked: Callable, top: str):
    assert unpacked(packed({top + name: clip for name, clip in CLIPS.items()})) == CLIPS


def test_folders_below_the_common_one_are_kept(unpacked: Callable):
    found = unpacked(packed({"all/ann/a.mp4": b"1", "all/bob/b.MOV": b"2", "all/x.csv": b"3"}))
    assert found == {"ann/a.mp4": b"1", "bob/b.MOV": b"2", "x.csv": b"3"}


def test_hidden_files_and_files_outside_the_common_folder_are_skipped(unpacked: Callable):
    members = {f"Scrapping/{name}": clip for name, clip in CLIPS.items()}
    others = {
        "README.txt": b"",
        "Scrapping/": b"",
        "__MACOSX/Scrapping/._Happy_0001.mp4": b"",
        "Scrapping/.DS_Store": b"",
    }
    assert unpacked(packed(members | others)) == CLIPS


@pytest.mark.parametrize(
    "name",
    [
        "../Happy_0002.mp4",
        "clips/../../Happy_0002.mp4",
        "clips\\..\\..\\Happy_0002.mp4",
        "/tmp/Happy_0002.mp4",
        "\\\\server\\share\\Happy_0002.mp4",
        "C:Happy_0002.mp4",
        "c:\\Happy_0002.mp4",
        "clips\\Happy_0002.mp4",
        "Happy_0002.mp4\0.txt",
        "Happy_0001.mp4/Happy_0002.mp4",
    ],
)
def test_path_outside_the_folder_is_refused_by_name(unpacked: Callable, name: str):
    with pytest.raises(UserError) as caught:
        unpacked(packed(CLIPS | {name: b"hostile"}))
    assert repr(name) in str(caught.value) and "\n" not in str(caught.value)


def test_same_file_twice_is_refused(unpacked: Callable):
    with pytest.warns(UserWarning, match="Duplicate"):
        hostile = packed_with("Happy_0001.mp4")
    with pytest.raises(UserError, match=r"'Happy_0001\.mp4'"):
        unpacked(hostile)


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o666, stat.S_IFIFO])
def test_link_or_device_is_refused(unpacked: Callable, mode: int):
    hostile = packed_with("Happy_0002.mp4", external_attr=mode << 16)
    with pytest.raises(UserError, match=r"'Happy_0002\.mp4'"):
        unpacked(hostile)


def test_encrypted_file_is_refused(unpacked: Callable):
    zipped = packed(CLIPS)
    flags = zipped.index(b"PK\x01\x02") + 8
    with pytest.raises(UserError, match=r"'Happy_0001\.mp4'"):
        unpacked(zipped[:flags] + b"\x01\x00" + zipped[flags + 2 :])


def test_other_compression_than_deflate_is_refused(unpacked: Callable):
    with pytest.raises(UserError, match=r"'Happy_0001\.mp4'.*deflate"):
        unpacked(packed(CLIPS, ZIP_BZIP2))


@pytest.fixture
def no_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a file of a ZIP is unpacked at all."""
    monkeypatch.setattr(fetch, "unpack_member", None)


@pytest.mark.usefixtures("no_writing")
def test_bomb_is_refused_by_its_declared_size(unpacked: Callable):
    with pytest.raises(UserError, match="times its size"):
        unpacked(packed({"Happy_0001.mp4": b"clip", "Sad_0002.mp4": bytes(10**7)}))


@pytest.mark.usefixtures("no_writing")
def test_bomb_of_files_that_share_their_bytes_is_refused(unpacked: Callable):
    alone = packed({"0.mp4": np.random.default_rng(0).bytes(20_000) + bytes(400_000)})
    entry, end = alone.index(b"PK\x01\x02"), alone.index(b"PK\x05\x06")
    entries = b"".join(alone[entry:end].replace(b"0.mp4", b"%d.mp4" % i) for i in range(10))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 10, 10, len(entries), entry, 0)
    with pytest.raises(UserError, match=r" 196 "):
        unpacked(alone[:entry] + entries + tail)


@pytest.mark.usefixtures("no_writing")
@pytest.mark.parametrize(
    ("bound", "value", "reason"), [("MAX_BYTES", 1_199_999, "GiB"), ("MAX_MEMBERS", 1, "2 files")]
)
def test_too_much_is_refused(
    unpacked: Callable, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, reason: str
):
    monkeypatch.setattr(fetch, bound, value)
    with pytest.raises(UserError, match=reason):
        unpacked(packed(CLIPS))


@pytest.mark.parametrize("size", [100, 10_000_001])
def test_wrong_declared_size_is_detected_while_unpacking(
    unpacked: Callable, monkeypatch: pytest.MonkeyPatch, size: int
):
    written = []

    class Bounded(io.FileIO):
        def write(self, data: bytes) -> int:
            written.append(len(data))
            return super().write(data)

    monkeypatch.setattr(fetch, "open", lambda path, mode: Bounded(path, "xb"), raising=False)
    bomb = packed({"Happy_0001.mp4": CLIPS["Happy_0001.mp4"], "Sad_0002.mp4": bytes(10**7)})
    monkeypatch.setattr(fetch, "MAX_RATIO", 1000)  # lets the larger size through
    with pytest.raises(UserError, match=r"'Sad_0002\.mp4'"):
        unpacked(with_size(bomb, "Sad_0002.mp4", size))
    assert sum(written) <= 600_000 + size


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda z: b"<html>Sign in</html>", id="not a ZIP"),
        pytest.param(lambda z: b"", id="empty"),
        pytest.param(lambda z: z[:100_000], id="truncated"),
        pytest.param(lambda z: z[:-10], id="end missing"),
        pytest.param(lambda z: z[100_000:], id="start missing"),
        pytest.param(lambda z: z[:1000] + b"XX" + z[1002:], id="bytes changed"),
        pytest.param(
            lambda z: re.sub(rb"(PK\x01\x02.{4}).", rb"\1" + b"\x01", z, flags=re.DOTALL),
            id="encrypted",
        ),
        pytest.param(lambda z: packed({"readme.txt": b""}), id="no clips"),
        pytest.param(lambda z: packed({}), id="no files"),
    ],
)
def test_damaged_zip_is_refused_in_one_line(unpacked: Callable, damage: Callable):
    with pytest.raises(UserError, match=f".Scrapping-{ID}.zip") as caught:
        unpacked(damage(packed(CLIPS)))
    assert "DATASET_DOWNLOAD_ID" in str(caught.value) and "\n" not in str(caught.value)


def test_changed_bytes_are_detected_by_the_checksum(unpacked: Callable):
    zipped = packed(CLIPS, method=0)
    with pytest.raises(UserError, match=r"CRC.*'Happy_0001\.mp4'"):
        unpacked(zipped[:1000] + b"XX" + zipped[1002:])


def test_random_damage_is_harmless_or_refused(unpacked: Callable, root: Path):
    rng = np.random.default_rng(0)
    members = {name: clip[:300] for name, clip in CLIPS.items()}
    whole = packed(members)
    outcomes = {"same": 0, "refused": 0}
    for _ in range(500):
        zipped = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 4)):
            zipped[place] = rng.integers(256)
        try:
            found = unpacked(bytes(zipped))
            assert set(found.values()) <= set(members.values())  # a name may have changed
            outcomes["same"] += 1
            shutil.rmtree(root)
        except UserError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 0, outcomes  # else the test shows nothing


# Downloading


class Drive(ThreadingHTTPServer):
    """A local Google Drive with one file.

    Attributes:
        file: its bytes.
        cut_after: bytes after which it drops the connection; None to send all.
        page: HTML that it sends instead of the file.
        requests: path and first requested byte of each request.
    """

    file = packed(CLIPS)
    cut_after: int | None = None
    page: str | None = None

    def __init__(self) -> None:
        self.requests: list[tuple[str, int]] = []
        super().__init__(("127.0.0.1", 0), DriveRequest)
        self.url = f"http://127.0.0.1:{self.server_port}"


class DriveRequest(BaseHTTPRequestHandler):
    """Responds like Drive for a large file: a page with a form first, then the bytes."""

    server: Drive

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.server.requests.append((path, start))
        if path == "/uc":
            form = f'<form id="download-form" action="{self.server.url}/download"></form>'
            page = (self.server.page or form).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
            return
        body = self.server.file[start:]
        self.send_response(206 if start else 200)
        if start:
            size = len(self.server.file)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Type", "application/zip")
        self.send_header("Content-Disposition", 'attachment; filename="clips.zip"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut_after])

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Drive]:
    """Run a Drive server, and redirect gdown's requests to it."""
    with Drive() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        send_to(server.url, monkeypatch)
        yield server
        server.shutdown()
        thread.join()


def send_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    get = requests.Session.get

    def get_here(session: requests.Session, asked: str, **settings: object) -> requests.Response:
        return get(session, asked.replace("https://drive.google.com", url), **settings)

    monkeypatch.setattr(requests.Session, "get", get_here)
    monkeypatch.setattr(fetch, "RETRIES", 0)


def test_missing_folder_is_downloaded_and_nothing_else_stays(drive: Drive, root: Path):
    fetch_clips(root, ID)
    assert contents(root) == CLIPS
    assert list(root.parent.iterdir()) == [root]
    assert drive.requests == [("/uc", 0), ("/download", 0)]


def test_existing_folder_is_left_alone(drive: Drive, root: Path):
    root.mkdir(parents=True)
    fetch_clips(root, ID)
    fetch_clips(root, "")
    assert list(root.iterdir()) == [] and drive.requests == []


def test_interrupted_download_is_resumed(drive: Drive, root: Path):
    drive.cut_after = 700_000  # of which gdown has written one block of 512 KiB
    with pytest.raises(UserError, match="DATASET_DOWNLOAD_ID") as caught:
        fetch_clips(root, ID)
    (partial,) = root.parent.glob("*.part")
    assert "\n" not in str(caught.value)
    assert partial.stat().st_size == 2**19 and not root.exists()
    drive.cut_after = None
    fetch_clips(root, ID)
    assert contents(root) == CLIPS and list(root.parent.iterdir()) == [root]
    assert drive.requests[-1] == ("/download", 2**19)


def test_short_network_failure_is_retried(
    drive: Drive, root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fetch, "RETRIES", 2)
    drive.cut_after = 700_000  # of which gdown has written one block of 512 KiB
    fetch_clips(root, ID)
    assert contents(root) == CLIPS
    assert [start for _, start in drive.requests] == [0, 0, 2**19]


def test_interrupted_unpacking_starts_again(
    drive: Drive, root: Path, monkeypatch: pytest.MonkeyPatch
):
    unpack_member, begun = fetch.unpack_member, []

    def interrupt(*arguments: object) -> None:
        unpack_member(*arguments)
        begun.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "unpack_member", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch_clips(root, ID)
    assert begun and not root.exists()
    monkeypatch.setattr(fetch, "unpack_member", unpack_member)
    (archive,) = root.parent.glob(".*.zip")
    killed = archive.with_suffix(".unpacking")  # as kill -9 leaves it
    killed.mkdir()
    (killed / "Happy_0001.mp4").write_text("half")
    fetch_clips(root, ID)
    assert contents(root) == CLIPS and list(root.parent.iterdir()) == [root]
    assert len(drive.requests) == 2  # it was not downloaded again


def test_parallel_runs_download_once(drive: Drive, root: Path):
    runs = [threading.Thread(target=fetch_clips, args=(root, ID)) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert contents(root) == CLIPS and list(root.parent.iterdir()) == [root]
    assert len(drive.requests) == 2


@pytest.mark.parametrize(
    "page",
    [
        '<p class="uc-error-subcaption">Too many users have viewed this file recently.</p>',
        "<html>You need access</html>",
    ],
)
def test_refused_file_is_reported_with_the_reason(drive: Drive, root: Path, page: str):
    drive.page = page
    with pytest.raises(UserError, match="DATASET_DOWNLOAD_ID") as e:
        fetch_clips(root, ID)
    assert ("Too many users" in str(e.value)) == ("Too many" in page)
    assert str(root) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("content", [b"<html>Quota exceeded</html>", b"", b"random bytes"])
def test_download_that_is_no_zip_is_put_aside_and_fetched_again(
    drive: Drive, root: Path, content: bytes
):
    good, drive.file = drive.file, content
    with pytest.raises(UserError, match="DATASET_DOWNLOAD_ID") as caught:
        fetch_clips(root, ID)
    (aside,) = root.parent.glob(".*.not-a-zip")
    assert str(aside) in str(caught.value) and "\n" not in str(caught.value)
    assert aside.read_bytes() == content and not root.exists()
    drive.file = good
    fetch_clips(root, ID)
    assert contents(root) == CLIPS


def test_id_is_in_no_message(
    drive: Drive, root: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
):
    messages = []
    for page, file in ((ID, b""), (None, b"no ZIP"), (None, b"PK damaged"), (None, drive.file)):
        drive.page, drive.file = page, file
        with caplog.at_level("DEBUG", "emotion"):
            try:
                fetch_clips(root, ID)
            except UserError as error:
                messages.append(str(error))
                for path in root.parent.glob(".*.zip"):
                    path.unlink()
    assert len(messages) == 3 and contents(root) == CLIPS
    assert ID not in "".join([*messages, caplog.text, *capfd.readouterr()])


def test_too_large_file_is_not_downloaded(
    drive: Drive, root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fetch, "MAX_BYTES", len(drive.file) - 1)
    with pytest.raises(UserError, match="DATASET_DOWNLOAD_ID"):
        fetch_clips(root, ID)
    assert not root.exists()


def test_refused_connection_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch):
    send_to("http://127.0.0.1:1", monkeypatch)
    with pytest.raises(UserError, match="Connection refused") as caught:
        fetch_clips(root, ID)
    assert "Max retries" not in str(caught.value)
    assert str(root) in str(caught.value) and "\n" not in str(caught.value)


def test_unresponsive_drive_times_out(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetch, "TIMEOUT_S", (0.3, 0.3))
    with ThreadingHTTPServer(("127.0.0.1", 0), DriveRequest) as silent:  # nobody accepts
        send_to(f"http://127.0.0.1:{silent.server_port}", monkeypatch)
        with pytest.raises(UserError, match=re.escape(str(root))):
            fetch_clips(root, ID)


@pytest.mark.parametrize("wrong", ["https://drive.google.com/file/d/1a/view", "../1a", "1a b"])
def test_invalid_id_is_refused(drive: Drive, root: Path, wrong: str):
    with pytest.raises(UserError, match="DATASET_DOWNLOAD_ID"):
        fetch_clips(root, wrong)
    assert drive.requests == [] and not root.parent.exists()


def test_folder_that_cannot_be_created_is_named(root: Path):
    root.parent.write_text("a file")
    with pytest.raises(UserError, match=re.escape(str(root))):
        fetch_clips(root, ID)


# From the command line


@pytest.mark.parametrize("setting", ["data=scrapping", "data.download_id=null"])
def test_preprocess_without_an_id_names_folder_and_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path, setting: str
):
    from emotion.commands.preprocess import preprocess

    paths = [f"data.root={root}", f"paths.cache={tmp_path}/c", f"paths.output={tmp_path}/o"]
    monkeypatch.setattr("sys.argv", ["preprocess.py", "data=scrapping", setting, *paths])
    with pytest.raises(SystemExit) as caught:
        preprocess()
    line = str(caught.value.code)
    assert str(root) in line and "DATASET_DOWNLOAD_ID" in line and "\n" not in line


def test_download_id_of_the_environment_reaches_the_cache(
    drive: Drive,
    compose: Callable[..., DictConfig],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    from emotion.clips.demo.render import write_clip

    write_clip(tmp_path / "a.mp4", "Happy", 0, 1)
    drive.file = packed({"Scrapping/Happy_0001.mp4": (tmp_path / "a.mp4").read_bytes()})
    monkeypatch.setenv("DATASET_DOWNLOAD_ID", ID)
    overrides = ["data=scrapping", f"data.root={root}", f"paths.cache={root.parent}/cache"]
    builder = CacheBuilder.from_config(compose("preprocess", [*overrides, "num_workers=1"]))
    builder.ensure()
    assert [row.clip for row in builder.cache.manifest()] == ["Happy_0001"]
    assert len(drive.requests) == 2
