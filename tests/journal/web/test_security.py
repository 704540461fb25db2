"""Other pages, other computers and wrong passwords get nothing."""

import socket

import pytest
from fastapi.testclient import TestClient

from emotion.errors import UserError
from emotion.journal.web import security
from emotion.journal.web.app import create_app
from emotion.journal.web.security import local_path, served_hosts
from tests.journal.web.conftest import URL

PASSWORD = "correct horse"


@pytest.fixture
def locked(journal):
    app = create_app(journal, "0.0.0.0", PASSWORD)
    headers = {"Origin": URL, "Accept": "text/html"}
    with TestClient(app, base_url=URL, headers=headers, follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.7:8765", ""])
def test_a_foreign_host_header_is_refused(client, journal, host):
    journal.add_person("Ada")
    response = client.get("/household", headers={"Host": host})
    assert response.status_code == 400 and "Ada" not in response.text
    assert client.get("/household", headers={"Host": "localhost:8765"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8765", ""]
)
def test_a_foreign_origin_changes_nothing(client, journal, origin):
    response = client.post("/people", data={"name": "Eve"}, headers={"Origin": origin})
    assert response.status_code == 403
    assert journal.people() == []
    assert client.post("/people", data={"name": "Ada"}).status_code == 303
    assert [person.name for person in journal.people()] == ["Ada"]


def test_every_response_has_the_headers(client):
    for path in ("/", "/household", "/static/journal.js", "/static/plotly.js", "/nowhere"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self';") and "unsafe" not in policy
        assert "http" not in policy and "*" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404


def test_other_computers_need_a_password(journal):
    with pytest.raises(UserError, match="password"):
        create_app(journal, "0.0.0.0")


def test_own_addresses_are_served():
    assert served_hosts("127.0.0.1") == ("127.0.0.1", "localhost")
    assert "10.1.2.3" in served_hosts("10.1.2.3")
    everywhere = served_hosts("0.0.0.0")
    assert socket.gethostname().lower() in everywhere and "*" not in "".join(everywhere)


def test_nothing_is_shown_without_the_password(locked, journal):
    journal.add_person("Ada")
    for path in ("/", "/household", "/events", "/media/x/clip", "/about"):
        response = locked.get(path)
        assert (response.status_code, response.headers["location"]) == (
            303, f"/login?after={path}",
        )  # fmt: skip
    assert locked.post("/people", data={"name": "Eve"}).status_code == 401
    assert "Ada" not in locked.get("/login").text


def test_the_password_opens_a_session_that_ends(locked, journal):
    journal.add_person("Ada")
    wrong = locked.post("/login", data={"password": "Correct horse"})
    assert wrong.status_code == 401 and "set-cookie" not in wrong.headers
    right = locked.post("/login", data={"password": PASSWORD, "after": "/household"})
    assert (right.status_code, right.headers["location"]) == (303, "/household")
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert "Ada" in locked.get("/household").text
    token = locked.cookies[security.SESSION_COOKIE]
    locked.post("/logout")
    locked.cookies.set(security.SESSION_COOKIE, token)
    assert locked.get("/household").status_code == 303


def test_passwords_cannot_be_guessed_quickly(locked, monkeypatch):
    for number in range(security.ATTEMPTS):
        assert locked.post("/login", data={"password": str(number)}).status_code == 401
    assert locked.post("/login", data={"password": PASSWORD}).status_code == 429
    monkeypatch.setattr(security, "ATTEMPTS_S", 0)
    assert locked.post("/login", data={"password": PASSWORD}).status_code == 303


def test_the_hash_is_argon2id_and_salted():
    first, second = security.hash_password(PASSWORD), security.hash_password(PASSWORD)
    assert first.startswith("$argon2id$") and first != second and PASSWORD not in first


@pytest.mark.parametrize(
    ("after", "path"),
    [
        ("/people/1?month=2026-01", "/people/1?month=2026-01"),
        ("//evil.example/x", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ],
)
def test_login_leads_to_this_server_only(after, path):
    assert local_path(after) == path
