"""Who may use the page: checks of Host and Origin, response headers, the password and sessions.

Without `--host`, only this computer reaches the server. Other web pages in the same browser still
could: the Host check refuses DNS rebinding, the Origin check refuses forged requests, and the
headers keep the page from loading or sending anything elsewhere.
"""

import secrets
import socket
import time
from collections import deque
from urllib.parse import quote, urlsplit

import argon2
import psutil
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_HOSTS = ("127.0.0.1", "localhost")
EVERYWHERE = ("0.0.0.0", "::")
SAFE_METHODS = ("GET", "HEAD")
HEADERS = {
    # blob: is a recording before it is kept; nothing else comes from outside the server
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=(), browsing-topics=()",
    "Referrer-Policy": "same-origin",  # with `no-referrer`, browsers send `Origin: null`
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SESSION_COOKIE = "journal_session"
SESSION_S = 30 * 24 * 3600
MAX_SESSIONS = 1000  # the oldest ends
ATTEMPTS, ATTEMPTS_S = 5, 60  # wrong passwords of all clients together, per minute
PUBLIC_PATHS = ("/login", "/static/")


def served_hosts(host: str) -> tuple[str, ...]:
    """Return the Host headers, without port, that a server bound to `host` answers."""
    if host in LOCAL_HOSTS:
        return LOCAL_HOSTS
    if host not in EVERYWHERE:
        return (*LOCAL_HOSTS, host)
    own = {
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET
    }
    name = socket.gethostname().lower()
    return (*LOCAL_HOSTS, *sorted(own - set(LOCAL_HOSTS)), name, f"{name}.local")


def hash_password(password: str) -> str:
    """Return the argon2id hash of a password, with its salt and parameters."""
    return argon2.PasswordHasher().hash(password)


class Guard:
    """ASGI middleware that refuses foreign pages and adds the security headers to each response."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with status 403."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if scope["method"] not in SAFE_METHODS and not is_same_origin(Headers(scope=scope)):
            refusal = PlainTextResponse("This request does not come from the journal's page.", 403)
            return await refusal(scope, receive, send_with_headers)
        await self.app(scope, receive, send_with_headers)


def is_same_origin(headers: Headers) -> bool:
    """Return whether a request comes from a page of this server. Browsers send Origin with POST."""
    origin = urlsplit(headers.get("origin", ""))
    return origin.scheme in ("http", "https") and origin.netloc == headers.get("host", "")


class Sessions:
    """The password's hash, and the sessions of those who gave the password; they end with us."""

    def __init__(self, password_hash: str):
        self.password_hash = password_hash
        self.ends: dict[str, float] = {}  # token -> monotonic time
        self.failures: deque[float] = deque(maxlen=ATTEMPTS)

    def wait_s(self) -> float:
        """Return the seconds until a password may be tried again, 0 if it may now."""
        if len(self.failures) < ATTEMPTS:
            return 0.0
        return max(0.0, self.failures[0] + ATTEMPTS_S - time.monotonic())

    def open(self, password: str) -> str | None:
        """Return the token of a new session, or None if the password is wrong."""
        try:
            argon2.PasswordHasher().verify(self.password_hash, password)
        except argon2.exceptions.VerificationError:
            self.failures.append(time.monotonic())
            return None
        token = secrets.token_urlsafe(32)
        self.ends[token] = time.monotonic() + SESSION_S
        while len(self.ends) > MAX_SESSIONS:
            del self.ends[next(iter(self.ends))]
        return token

    def is_open(self, token: str) -> bool:
        """Return whether a session exists and has not ended."""
        return self.ends.get(token, 0.0) > time.monotonic()

    def close(self, token: str) -> None:
        """End a session."""
        self.ends.pop(token, None)


class RequireSession:
    """ASGI middleware that sends requests without a session to the login page."""

    def __init__(self, app: ASGIApp, sessions: Sessions):
        self.app, self.sessions = app, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with a session; redirect or refuse others."""
        if scope["type"] != "http" or scope["path"].startswith(PUBLIC_PATHS):
            return await self.app(scope, receive, send)
        if self.sessions.is_open(HTTPConnection(scope).cookies.get(SESSION_COOKIE, "")):
            return await self.app(scope, receive, send)
        if scope["method"] in SAFE_METHODS:
            response = RedirectResponse(f"/login?after={quote(scope['path'])}", 303)
        else:
            response = PlainTextResponse("Log in first.", 401)
        await response(scope, receive, send)


def local_path(after: str) -> str:
    """Return a path of this server to go to after login; `/` for anything else."""
    parts = urlsplit(after)
    is_path = after.startswith("/") and not after.startswith(("//", "/\\"))
    return after if is_path and not parts.scheme and not parts.netloc else "/"
