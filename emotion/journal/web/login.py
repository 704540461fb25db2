"""The login page of a journal with a password."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from emotion.journal.web.security import SESSION_COOKIE, SESSION_S, local_path
from emotion.journal.web.templating import render

MAX_PASSWORD = 1000  # characters, so that hashing takes no longer
router = APIRouter()


@router.get("/login")
def show_login(request: Request, after: str = "/") -> Response:
    """Ask for the password."""
    return render(request, "login.html", after=local_path(after), problem="")


@router.post("/login")
def log_in(
    request: Request,
    password: Annotated[str, Form(max_length=MAX_PASSWORD)],
    after: Annotated[str, Form()] = "/",
) -> Response:
    """Open a session, or ask again; after five wrong passwords, only a minute later."""
    sessions, after = request.app.state.sessions, local_path(after)
    if (wait_s := sessions.wait_s()) > 0:
        problem = f"Too many wrong passwords. Try again in {wait_s:.0f} seconds."
        return render(request, "login.html", 429, after=after, problem=problem)
    if (token := sessions.open(password)) is None:
        problem = "This is not the password."
        return render(request, "login.html", 401, after=after, problem=problem)
    response = RedirectResponse(after, 303)
    response.set_cookie(
        SESSION_COOKIE, token, max_age=SESSION_S, httponly=True, samesite="strict",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return response


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the session."""
    request.app.state.sessions.close(request.cookies.get(SESSION_COOKIE, ""))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(SESSION_COOKIE)
    return response
