"""The journal's web server: FastAPI with its middleware, error pages and static files."""

from pathlib import Path

import plotly
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware import Middleware
from fastapi.responses import FileResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from emotion.errors import UserError, is_machine_fault
from emotion.journal.journal import Conflict, Journal, NotFound
from emotion.journal.web import actions, login, old_clips, pages
from emotion.journal.web.security import (
    LOCAL_HOSTS,
    Guard,
    RequireSession,
    Sessions,
    hash_password,
    served_hosts,
)
from emotion.journal.web.templating import render

STATIC = Path(__file__).with_name("static")
PLOTLY = Path(plotly.__file__).with_name("package_data") / "plotly.min.js"


def create_app(
    journal: Journal, host: str = LOCAL_HOSTS[0], password: str | None = None
) -> FastAPI:
    """Build the server of an open journal.

    Args:
        journal: the journal; the caller closes it.
        host: the address the server is bound to. Requests with other Host headers are refused.
        password: what a browser must send before it may see anything; needed for other hosts than
            this computer.

    Raises:
        UserError: the host is not this computer, and there is no password.
    """
    if host not in LOCAL_HOSTS and not password:
        raise UserError(f"host={host} lets other computers in: give a password as well")
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=served_hosts(host), www_redirect=False),
        Middleware(Guard),
    ]
    sessions = Sessions(hash_password(password)) if password else None
    if sessions:
        middleware.append(Middleware(RequireSession, sessions=sessions))
    app = FastAPI(
        title="Video journal",
        openapi_url=None,  # its pages would load scripts from elsewhere
        middleware=middleware,
        exception_handlers={
            UserError: on_user_error,
            OSError: on_os_error,
            HTTPException: on_http,
            RequestValidationError: on_invalid,
        },
    )
    app.state.journal, app.state.sessions = journal, sessions
    app.state.staged = {}  # imports of old clips: token -> person and folder
    app.include_router(pages.router)
    app.include_router(actions.router)
    app.include_router(old_clips.router)
    if sessions:
        app.include_router(login.router)
    app.add_api_route("/static/plotly.js", lambda: FileResponse(PLOTLY), methods=["GET"])
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def on_user_error(request: Request, error: UserError) -> Response:
    """Show a mistake as one line."""
    status = 404 if isinstance(error, NotFound) else 409 if isinstance(error, Conflict) else 400
    return show_error(request, status, str(error))


def on_http(request: Request, error: HTTPException) -> Response:
    """Show an error of the server's framework, such as an unknown address."""
    return show_error(request, error.status_code, str(error.detail))


def on_invalid(request: Request, error: RequestValidationError) -> Response:
    """Show what is wrong with a form or an address."""
    first = error.errors()[0]
    return show_error(request, 400, f"{first['loc'][-1]}: {first['msg']}")


def on_os_error(request: Request, error: OSError) -> Response:
    """Show a full disk or a read-only folder as one line; re-raise other errors of the system."""
    if not is_machine_fault(error) and not isinstance(error, PermissionError):
        raise error
    what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return show_error(request, 507, f"Nothing was changed: {what}. Make room, or check the folder.")


def show_error(request: Request, status: int, message: str) -> Response:
    """Answer with a page, or with the line alone if a script asked."""
    if "text/html" in request.headers.get("accept", ""):
        return render(request, "error.html", status=status, message=message)
    return PlainTextResponse(message, status)
