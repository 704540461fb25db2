"""Open the video journal in the browser: `python -m emotion.journal`."""

import argparse
import getpass
import os
import sys
import threading
import webbrowser
from pathlib import Path

from emotion.cli import exit_on_error

FOLDER = Path("~/emotion-journal")
HOST, PORT = "127.0.0.1", 8765
PASSWORD = "EMOTION_JOURNAL_PASSWORD"


def main() -> None:
    """Serve the journal until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m emotion.journal",
        description="Open a video journal in the browser. Nothing leaves this computer.",
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"of the journal ({FOLDER})")
    parser.add_argument("--port", type=int, default=PORT, help=f"of the page ({PORT})")
    parser.add_argument(
        "--host",
        default=HOST,
        help=f"address to listen at ({HOST}); another one asks for a password, or reads it from "
        f"${PASSWORD}",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    arguments = parser.parse_args()
    password = os.environ.get(PASSWORD)
    if password is None and arguments.host != HOST and sys.stdin.isatty():
        password = getpass.getpass("password of the journal: ")
    with exit_on_error():
        import uvicorn

        from emotion.journal.journal import Journal
        from emotion.journal.web.app import create_app

        with Journal.open(arguments.folder) as journal:
            for problem in journal.problems:
                print(f"warning: {problem}", file=sys.stderr)
            app = create_app(journal, host=arguments.host, password=password)
            config = uvicorn.Config(
                app,
                host=arguments.host,
                port=arguments.port,
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=2,
            )
            listener = config.bind_socket()  # before the browser looks for it
            url = f"http://{arguments.host}:{arguments.port}"
            print(f"the journal {journal.folder.root} is at {url} (Ctrl-C ends it)", flush=True)
            if not arguments.no_browser:
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
            uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
