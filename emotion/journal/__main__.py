"""Open the video journal in the browser: `python -m emotion.journal`."""

import argparse
import os
import sys
from pathlib import Path

from emotion.stopping import stop_on_signals

FOLDER = Path("~/emotion-journal")
HOST, PORT = "127.0.0.1", 8765
PASSWORD = "EMOTION_JOURNAL_PASSWORD"
GRACE_S = 1  # for requests under way when the server is stopped


def main() -> None:
    """Serve the journal until Ctrl-C."""
    stop_on_signals("the journal is closed; everything is kept")
    parser = argparse.ArgumentParser(
        prog="python -m emotion.journal",
        description="Open a video journal in the browser. Nothing leaves this computer.",
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"of the journal ({FOLDER})")
    parser.add_argument(
        "--model",
        default="starter",
        help="starter, a run's folder, a checkpoint or an ONNX file; its training must have known "
        "the subjects of the clips (starter)",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"of the page ({PORT})")
    parser.add_argument(
        "--host",
        default=HOST,
        help=f"address to listen at ({HOST}); another one needs a password, which is asked for or "
        f"read from ${PASSWORD}",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    arguments = parser.parse_args()
    from emotion.cli import exit_on_error

    with exit_on_error():
        serve(arguments)


def serve(arguments: argparse.Namespace) -> None:
    """Open the journal and serve its pages."""
    import getpass
    import socket
    import threading
    import webbrowser

    from emotion.errors import UserError

    try:
        import uvicorn

        from emotion.journal.journal import Journal
        from emotion.journal.web.app import create_app
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package {error.name} is not installed: run `make journal` in a clone, or "
            "`pip install '.[journal]'`"
        ) from None

    password = os.environ.get(PASSWORD)
    if password is None and arguments.host != HOST and sys.stdin.isatty():
        password = getpass.getpass("password of the journal: ")
    try:
        family = socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
        listener = socket.create_server((arguments.host, arguments.port), family=family)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--host {arguments.host} --port {arguments.port}: {error}: choose another port"
        ) from None
    with listener, Journal.open(arguments.folder, arguments.model) as journal:
        for problem in journal.problems:
            print(f"warning: {problem}", file=sys.stderr)
        app = create_app(journal, host=arguments.host, password=password)
        config = uvicorn.Config(
            app, log_level="warning", server_header=False, timeout_graceful_shutdown=GRACE_S
        )
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        url = f"http://{host}:{listener.getsockname()[1]}"
        print(f"the journal {journal.folder.root} is at {url} (Ctrl-C ends it)", flush=True)
        if not arguments.no_browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
