"""Take the pictures of docs/journal.md: python -m benchmarks.journal_pictures FOLDER docs.

FOLDER is a journal of `python -m benchmarks.journal_demo FOLDER`. Needs Chromium and
requirements-browser.txt.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.journal import serve

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDE = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}


def take(page: Page, path: Path) -> None:
    """Write a picture of a page once all of it is there."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(700)  # of the charts' first drawing
    page.screenshot(path=path, type="jpeg", quality=82)
    print(f"{path}: {path.stat().st_size >> 10} KiB")


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.journal_pictures", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="of the journal")
    parser.add_argument("docs", type=Path, help="folder of the pictures")
    arguments = parser.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)))
    with serve(arguments.folder) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport=WIDE, locale="en-GB")
        page.goto(f"http://127.0.0.1:{port}/")
        calendar = page.url
        last = page.locator("td.day:not(.empty) a")
        take(page, arguments.docs / "journal_calendar.jpg")
        last.nth(last.count() - 2).click()
        take(page, arguments.docs / "journal_entry.jpg")
        page.goto(f"{calendar}/trends")
        take(page, arguments.docs / "journal_trends.jpg")
        page = browser.new_page(viewport=PHONE, locale="en-GB", color_scheme="dark")
        page.goto(calendar)
        take(page, arguments.docs / "journal_phone.jpg")
        browser.close()


if __name__ == "__main__":
    main()
