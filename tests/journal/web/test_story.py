"""The journal in Debian's Chromium, as a person uses it, with a synthetic face as the camera."""

import io
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import pytest

from emotion.clips.demo.render import Format, render_frames

pytest.importorskip("playwright", reason="requirements-browser.txt is not installed")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS = {"desktop": (1440, 900), "phone": (390, 844)}
PATIENCE_MS = 60_000  # of one step on a busy machine
# Plotly sets one style attribute on a test picture, which the policy refuses, without effect
EXPECTED = re.compile("Applying inline style violates")

expect.set_options(timeout=PATIENCE_MS)
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of a synthetic face, as Chromium's fake camera plays them."""
    path = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    video = Format(num_frames=100, size_px=480, fps=10)
    with open(path, "wb") as file:
        for frame in render_frames("Happy", 7, 4, video):
            picture = cv2.copyMakeBorder(frame, 0, 0, 80, 80, cv2.BORDER_REPLICATE)
            file.write(cv2.imencode(".jpg", picture)[1].tobytes())
    return path


@pytest.fixture(scope="module")
def browser(camera: Path) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    arguments = [
        "--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
    ]  # fmt: skip
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Run `python -m emotion.journal` until the context ends; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "emotion.journal", f"--folder={folder}", f"--port={port}"]
    server = subprocess.Popen([*command, "--no-browser"])
    try:
        end = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert server.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(30) in (130, -signal.SIGINT)


@contextmanager
def open_page(browser: Browser, url: str, width: str, **settings: str) -> Iterator[Page]:
    """Open a page that must send nothing elsewhere and log no errors."""
    requests, errors = [], []
    size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
    context = browser.new_context(
        viewport=size, permissions=["camera", "microphone"], locale="en-GB", **settings
    )
    context.set_default_timeout(PATIENCE_MS)
    context.on("request", lambda request: requests.append(request.url))
    page = context.new_page()
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    yield page
    context.close()
    elsewhere = [each for each in requests if not each.startswith((url, f"blob:{url}"))]
    assert requests and elsewhere == []
    assert [error for error in errors if not EXPECTED.search(error)] == []


def check(page: Page) -> None:
    """Assert that a page fits its window and that axe finds nothing."""
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], page.url
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []


def follow(page: Page, role: str, name: str) -> None:
    """Click a link or button, and wait until the next page's scripts have run."""
    with page.expect_navigation():
        page.get_by_role(role, name=name, exact=True).click()


def until(page: Page, condition: str) -> None:
    """Wait until a JavaScript expression is true; `wait_for_function` needs eval in the page."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def record(page: Page) -> None:
    """Record three seconds with the camera, look at them, and keep them."""
    follow(page, "link", "Add")
    page.get_by_role("button", name="Start the camera").click()
    page.get_by_role("button", name="Record").click()
    expect(page.locator("#status")).to_have_text("Recording")
    page.get_by_role("button", name="Stop").click()  # waits until three seconds have passed
    expect(page.locator("#preview")).to_be_visible(timeout=PATIENCE_MS)
    until(page, "document.querySelector('#preview').currentTime > 0")


def tap(page: Page, label: str) -> None:
    """Correct an entry; the answer changes without a new page."""
    page.evaluate("window.isSamePage = true")
    page.get_by_role("button", name=label, exact=True).click()
    expect(page.locator(".verdict")).to_have_text(label)
    pressed = page.get_by_role("button", name=label, exact=True)
    expect(pressed).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("window.isSamePage")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_day_from_recording_to_deletion(browser: Browser, tmp_path: Path, width: str):
    folder = tmp_path / "journal"
    with serve(folder) as url, open_page(browser, url, width) as page:
        # the first minute
        check(page)
        page.get_by_label("Whose journal is this?").fill("Ada")
        follow(page, "button", "Begin")
        expect(page.get_by_text("your calendar is empty")).to_be_visible()
        check(page)

        # record, look, again, keep
        record(page)
        page.get_by_role("button", name="Again").click()
        page.get_by_role("button", name="Stop").click()
        page.get_by_label("Note").fill("First <b>snow</b>")
        page.get_by_label("Tags").fill("outdoors, with Jo")
        check(page)
        follow(page, "button", "Keep it")

        # the answer comes by itself
        expect(page.locator("#entry")).to_have_attribute("data-state", "done")
        expect(page.locator(".verdict")).to_contain_text(
            re.compile("Happy|Neutral|Sad|Shock|Anger")
        )
        expect(page.locator(".timeline rect").first).to_be_attached()
        assert page.get_by_label("Note").input_value() == "First <b>snow</b>"
        until(page, "document.querySelector('.clip video').readyState > 1")
        check(page)
        entry_url = page.url

        # correct with one tap, change one's mind
        tap(page, "Sad")
        tap(page, "Happy")
        check(page)

        # look back
        follow(page, "link", "Calendar")
        day = page.locator("td.today a")
        expect(day).to_have_attribute("aria-label", re.compile("Happy"))
        until(page, "document.querySelector('td.today img').naturalWidth > 0")
        check(page)
        with page.expect_navigation():
            day.click()
        assert page.url == entry_url
        for name in ("Year", "Trends", "Search", "Profile", "Household"):
            follow(page, "link", name)
            check(page)
            if name == "Trends":
                expect(page.locator(".chart .main-svg").first).to_be_visible()
                page.get_by_role("button", name="30 days").click()
            if name == "Search":
                page.get_by_label("In notes").fill("SNOW")
                page.get_by_role("button", name="Search").click()
                expect(page.locator(".tile .note")).to_have_text("First <b>snow</b>")

        # a film
        follow(page, "link", "Film")
        page.get_by_role("button", name="Make the film", exact=True).click()
        with page.expect_download() as started:
            page.get_by_role("link", name="Download").click()
        with av.open(str(started.value.path())) as film:
            assert film.streams.video[0].codec_context.name == "h264"
            assert film.streams.audio[0].codec_context.name == "aac"
            assert 0.8 <= film.duration / 1e6 <= 1.3
        check(page)

        # take everything away, delete it, bring it back
        follow(page, "link", "Household")
        page.get_by_role("button", name="Export everything").click()
        with page.expect_download() as started:
            page.locator("#jobs li", has_text="Export").get_by_role("link").click()
        archive = tmp_path / "export.zip"
        started.value.save_as(archive)
        page.get_by_label(re.compile("^Type delete")).fill("delete")
        page.get_by_role("button", name="Delete everything").click()
        expect(page.get_by_label("Whose journal is this?")).to_be_visible()
        assert files_of(folder) == []
        follow(page, "link", "Import it here.")
        page.locator("#archive").set_input_files(archive)
        expect(page.locator("#jobs li", has_text="Import")).to_contain_text("1 entries")
        page.goto(url)
        page.locator("td.today a").click()
        expect(page.locator(".verdict")).to_have_text("Happy")
        assert page.get_by_label("Tags").input_value() == "outdoors, with Jo"

        # delete the entry, with its files
        assert len(files_of(folder)) == 2
        page.get_by_text("Delete", exact=True).click()
        page.get_by_role("button", name="Delete this entry").click()
        expect(page.get_by_text("your calendar is empty")).to_be_visible()
        assert files_of(folder) == []


def files_of(folder: Path) -> list[str]:
    return [path.name for name in ("clips", "covers") for path in (folder / name).iterdir()]


def test_by_keyboard_alone_in_the_dark(browser: Browser, tmp_path: Path, clip: bytes):
    settings = {"color_scheme": "dark", "reduced_motion": "reduce"}
    with serve(tmp_path / "j") as url, open_page(browser, url, "desktop", **settings) as page:
        check(page)
        focus(page, "Whose journal is this?")
        page.keyboard.type("Ada")
        page.keyboard.press("Enter")
        expect(page.get_by_text("your calendar is empty")).to_be_visible()
        focus(page, "Record today")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="How are you, Ada?")).to_be_visible()
        focus(page, "Start the camera")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Record").wait_for()
        for key in ("Enter", "Enter", "Enter"):  # record, stop, keep: focus is there already
            until(page, "['record', 'stop', 'keep'].includes(document.activeElement.id)")
            page.wait_for_timeout(200)
            before = page.evaluate("document.activeElement.id")
            page.keyboard.press(key)
            until(page, f"document.activeElement.id !== {before!r}")
        page.wait_for_url("**/entries/*")
        expect(page.locator("#entry")).to_have_attribute("data-state", "done")
        check(page)
        focus(page, "Anger")
        page.keyboard.press("Enter")
        expect(page.locator(".verdict")).to_have_text("Anger")
        assert page.evaluate("document.activeElement.value") == "Anger"
        check(page)


def focus(page: Page, name: str) -> None:
    """Press Tab until the element with this text or label has the focus, which must be visible."""
    script = """() => { const e = document.activeElement;
      return (e.labels?.[0]?.innerText ?? e.innerText ?? '').trim(); }"""
    page.wait_for_load_state()  # its scripts have run
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(script) == name:
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            return
    raise AssertionError(f"{name} cannot be reached with Tab")


def test_clips_without_a_face_and_broken_ones_say_so(browser: Browser, tmp_path: Path, clip: bytes):
    with serve(tmp_path / "j") as url, open_page(browser, url, "phone") as page:
        page.get_by_label("Whose journal is this?").fill("Ada")
        follow(page, "button", "Begin")
        for content, state in ((clip, "no_face"), (clip[:3000], "broken")):
            follow(page, "link", "Add")
            file = {"name": "a.mp4", "mimeType": "video/mp4", "buffer": content}
            page.locator("#file").set_input_files(file)
            page.wait_for_url("**/entries/*")
            expect(page.locator("#entry")).to_have_attribute("data-state", state)
            check(page)
        tap(page, "Neutral")


def test_old_clips_are_shown_before_they_are_kept(
    browser: Browser, tmp_path: Path, clip: bytes, encode_video: Callable[..., Path]
):
    old = tmp_path / "old"
    old.mkdir()
    (old / "one.mp4").write_bytes(clip)
    (old / "same.mp4").write_bytes(clip)
    (old / "other.mp4").write_bytes(clip + b"\0")
    (old / "words.mp4").write_bytes(b"no clip")
    with serve(tmp_path / "j") as url, open_page(browser, url, "desktop") as page:
        page.get_by_label("Whose journal is this?").fill("Ada")
        follow(page, "button", "Begin")
        follow(page, "link", "Add")
        page.locator("#files").set_input_files(sorted(old.iterdir()))
        page.wait_for_url("**/old-clips/*")
        expect(page.get_by_role("button", name="Keep the chosen clips")).to_be_visible()
        check(page)
        expect(page.get_by_text("already here")).to_have_count(1)
        page.get_by_label("Recording time of one.mp4").fill("2020-02-29T10:00:00")
        page.get_by_label("Keep other.mp4").uncheck()
        page.get_by_role("button", name="Keep the chosen clips").click()
        expect(page.locator("#jobs")).to_contain_text("1 clips")
        page.goto(f"{url}/")
        page.goto(f"{page.url}?month=2020-02")
        expect(page.locator("td.day:not(.empty) .number")).to_have_text("29")


def test_a_locked_journal_opens_with_its_password(browser: Browser, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("EMOTION_JOURNAL_PASSWORD", "correct horse")
    with serve(tmp_path / "j") as url, open_page(browser, url, "phone") as page:
        check(page)
        page.get_by_label("Password").fill("correct horse")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_label("Whose journal is this?")).to_be_visible()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Password")).to_be_visible()


def test_other_programs_on_this_computer_do_not_stop_it(tmp_path: Path):
    with serve(tmp_path / "j") as url:
        for junk in (b"\0" * 1000, b"GET / HTTP/9.9\r\n\r\n", b"POST /import HTTP/1.1\r\n"):
            host, _, port = url.removeprefix("http://").partition(":")
            with socket.create_connection((host, int(port)), 5) as connection:
                connection.sendall(junk)
                if not junk.startswith(b"POST"):
                    assert b"400" in io.BytesIO(connection.recv(4096)).getvalue()
