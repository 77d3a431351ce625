"""Signing in: the first administrator, guessing, and what ends a session."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from nexus.access.service import AccessService
from nexus.access.tables import ProjectRow, SessionRow, SetupTokenRow, UserRow
from nexus.storage.db import Database

from .conftest import PASSWORD, Browser, NewBrowser, browsers, make_access, make_app


async def count(database: Database, table: Any) -> int:
    found = await database.read(lambda session: session.scalar(select(func.count()).select_from(table)))
    return found or 0


@pytest.mark.slow
async def test_fifty_setups_at_once_make_one_administrator(any_access: AccessService, any_database: Database) -> None:
    token = await any_access.accounts.issue_setup_token()
    assert token is not None
    async with browsers(make_app(any_access, any_database)) as browser:
        clients = [browser(client=(f"203.0.113.{i}", 1)).client for i in range(50)]
        body = {"token": token.reveal(), "password": PASSWORD}
        answers = await asyncio.gather(
            *(
                client.post("/api/v1/auth/setup", json=body | {"email": f"u{i}@example.com"})
                for i, client in enumerate(clients)
            )
        )
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(201) == 1
    assert set(statuses) <= {201, 401, 409, 429}
    assert await count(any_database, UserRow) == 1
    assert await count(any_database, ProjectRow) == 1
    assert await count(any_database, SetupTokenRow) == 0
    assert await any_access.accounts.issue_setup_token() is None


async def test_setup_signs_in_and_owns_the_default_project(access: AccessService, browser: NewBrowser) -> None:
    made = browser()
    assert (await made.client.get("/api/v1/auth/status")).json() == {"needs_setup": True}
    token = await access.accounts.issue_setup_token()
    assert token is not None
    body = {"token": token.reveal(), "email": "Root@Example.com", "password": PASSWORD}
    response = made.taken(await made.client.post("/api/v1/auth/setup", json=body))
    assert response.status_code == 201
    me = (await made.client.get("/api/v1/auth/me")).json()
    assert (me["user"]["email"], me["role"], "admin" in me["scopes"]) == ("root@example.com", "owner", True)
    assert (await made.client.get("/api/v1/auth/status")).json() == {"needs_setup": False}
    assert (await made.client.post("/api/v1/auth/setup", json=body)).json()["code"] == "already_set_up"


@pytest.mark.parametrize("token", [None, "", [], 0, {}, "wrong", "x" * 200])
async def test_a_wrong_token_sets_nothing_up(access: AccessService, browser: NewBrowser, token: Any) -> None:
    await access.accounts.issue_setup_token()
    body = {"token": token, "email": "root@example.com", "password": PASSWORD}
    response = await browser().client.post("/api/v1/auth/setup", json=body)
    assert response.status_code == (401 if token == "wrong" else 422)
    assert await access.accounts.needs_setup()


async def test_a_setup_token_ends_after_an_hour(access: AccessService, browser: NewBrowser, database: Database) -> None:
    token = await access.accounts.issue_setup_token()
    assert token is not None

    def age(session: Any) -> None:
        session.scalars(select(SetupTokenRow)).one().expires_at = datetime.now(UTC) - timedelta(seconds=1)

    await database.write(age)
    body = {"token": token.reveal(), "email": "root@example.com", "password": PASSWORD}
    assert (await browser().client.post("/api/v1/auth/setup", json=body)).status_code == 401


async def test_the_cookie_is_for_the_browser_alone(access: AccessService, browser: NewBrowser) -> None:
    await access.accounts.create_admin("root@example.com", PASSWORD)
    response = await browser().sign_in("root@example.com")
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("nexus=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Domain" not in cookie
    assert response.headers["cache-control"] == "no-store"
    access.public_url = "https://nexus.example"
    cookie = (await browser().sign_in("root@example.com")).headers["set-cookie"]
    assert cookie.startswith("__Host-nexus=")
    assert "Secure" in cookie
    assert "Path=/" in cookie


@pytest.mark.slow
async def test_a_thousand_guesses_are_ten(access: AccessService, browser: NewBrowser) -> None:
    await access.accounts.create_admin("root@example.com", PASSWORD)
    client = browser().client
    statuses = []
    for i in range(100):
        response = await client.post(
            "/api/v1/auth/login",
            json={"email": "root@example.com", "password": f"guess {i}"},
            headers={"x-forwarded-for": f"198.51.100.{i}"},
        )
        statuses.append(response.status_code)
    assert statuses == [401] * 10 + [429] * 90
    assert int(response.headers["retry-after"]) > 0
    # The account waits wherever the guesses come from, and the address whatever the account is.
    other = browser(client=("198.51.100.7", 1))
    assert (await other.sign_in("root@example.com")).status_code == 429
    assert (await other.sign_in("nobody@example.com")).status_code == 401
    assert (await browser().sign_in("nobody@example.com")).status_code == 429


async def test_guesses_at_once_count_as_well(access: AccessService, browser: NewBrowser) -> None:
    await access.accounts.create_admin("root@example.com", PASSWORD)
    client = browser().client
    body = {"email": "root@example.com", "password": "wrong"}
    answers = await asyncio.gather(*(client.post("/api/v1/auth/login", json=body) for _ in range(40)))
    assert sum(answer.status_code == 401 for answer in answers) <= 10


async def test_signing_in_often_is_no_failure(access: AccessService, browser: NewBrowser) -> None:
    await access.accounts.create_admin("root@example.com", PASSWORD)
    assert [(await browser().sign_in("root@example.com")).status_code for _ in range(12)] == [200] * 12


async def test_a_wrong_address_and_a_wrong_password_read_the_same(access: AccessService, browser: NewBrowser) -> None:
    await access.accounts.create_admin("root@example.com", PASSWORD)
    one = await browser().sign_in("root@example.com", "wrong password")
    two = await browser().sign_in("nobody@example.com", "wrong password")
    assert one.status_code == two.status_code == 401
    assert one.json() == two.json()


async def is_in(made: Browser) -> bool:
    response = await made.client.get("/api/v1/auth/me")
    assert response.status_code in (200, 401)
    return response.status_code == 200


async def test_signing_out_ends_the_session_for_good(root: Browser, browser: NewBrowser) -> None:
    cookie = root.client.cookies["nexus"]
    assert (await root.client.post("/api/v1/auth/logout")).status_code == 204
    thief = browser()
    thief.client.cookies["nexus"] = cookie
    assert not await is_in(thief)


async def test_a_new_password_ends_every_other_session(person: Any, browser: NewBrowser) -> None:
    one = await person("developer")
    two = browser()
    await two.sign_in("developer@example.com")
    old = browser()
    old.client.cookies["nexus"] = one.client.cookies["nexus"]
    assert await is_in(old)
    body = {"current_password": PASSWORD, "new_password": "another quite long sentence"}
    changed = one.taken(await one.client.post("/api/v1/auth/password", json=body))
    assert changed.status_code == 200
    assert [await is_in(made) for made in (one, two, old)] == [True, False, False]
    assert (await browser().sign_in("developer@example.com")).status_code == 401
    assert (await browser().sign_in("developer@example.com", "another quite long sentence")).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"current_password": "wrong", "new_password": "another quite long sentence"},
        {"current_password": PASSWORD, "new_password": "short"},
        {"current_password": PASSWORD, "new_password": None},
        {"current_password": PASSWORD, "new_password": ""},
        {"current_password": PASSWORD, "new_password": []},
        {"current_password": PASSWORD, "new_password": 0},
        {"new_password": "another quite long sentence"},
    ],
)
async def test_a_refused_password_changes_nothing(root: Browser, browser: NewBrowser, body: dict[str, Any]) -> None:
    assert (await root.client.post("/api/v1/auth/password", json=body)).status_code in (401, 422)
    assert await is_in(root)
    assert (await browser().sign_in("root@example.com")).status_code == 200


@pytest.mark.parametrize(
    "change",
    [{"disabled": True}, {"superadmin": True}, {"password": "another quite long sentence"}],
    ids=["disabled", "promoted", "new password"],
)
async def test_what_an_administrator_changes_ends_sessions(person: Any, root: Browser, change: dict[str, Any]) -> None:
    one = await person("developer")
    response = await root.client.patch(f"/api/v1/users/{one.me['id']}", json=change)
    assert response.status_code == 200
    assert not await is_in(one)
    assert await is_in(root)


async def test_a_change_of_role_ends_sessions(person: Any, root: Browser) -> None:
    one = await person("developer")
    url = f"/api/v1/projects/{root.me['project_id']}/members/{one.me['id']}"
    assert (await root.client.patch(url, json={"role": "viewer"})).status_code == 200
    assert not await is_in(one)
    assert (await one.sign_in("developer@example.com")).json()["role"] == "viewer"
    assert (await root.client.delete(url)).status_code == 204
    assert not await is_in(one)
    again = (await one.sign_in("developer@example.com")).json()
    assert (again["project_id"], again["scopes"]) == (None, [])


async def test_a_disabled_user_cannot_sign_in(person: Any, root: Browser, browser: NewBrowser) -> None:
    one = await person("developer")
    assert (await root.client.delete(f"/api/v1/users/{one.me['id']}")).json()["disabled"] is True
    assert (await browser().sign_in("developer@example.com")).status_code == 401


async def test_sessions_are_listed_and_ended_one_by_one(root: Browser, browser: NewBrowser, person: Any) -> None:
    two = browser(**{"user-agent": "other browser"})
    await two.sign_in("root@example.com")
    listed = (await root.client.get("/api/v1/auth/sessions")).json()["data"]
    assert [entry["current"] for entry in listed] == [False, True]
    assert listed[0]["user_agent"] == "other browser"
    stranger = await person("owner", "stranger")
    url = f"/api/v1/auth/sessions/{listed[0]['id']}"
    assert (await stranger.client.delete(url)).status_code == 404
    assert (await root.client.delete(url)).status_code == 204
    assert [await is_in(made) for made in (root, two)] == [True, False]


@pytest.mark.parametrize(
    ("column", "ago", "lives"),
    [
        ("last_seen_at", timedelta(hours=11, minutes=59), True),
        ("last_seen_at", timedelta(hours=12, seconds=1), False),
        ("expires_at", timedelta(seconds=1), False),
    ],
)
async def test_sessions_end_when_idle_and_after_a_week(
    root: Browser, database: Database, column: str, ago: timedelta, lives: bool
) -> None:
    def age(session: Any) -> timedelta:
        row = session.scalars(select(SessionRow)).one()
        life: timedelta = row.expires_at - row.created_at
        setattr(row, column, datetime.now(UTC) - ago)
        return life

    assert await database.write(age) == timedelta(days=7)
    assert await is_in(root) is lives


async def test_cookies_that_nobody_gave_out_open_nothing(root: Browser, browser: NewBrowser) -> None:
    for value in ("x", "' OR 1=1--", "0" * 43, root.client.cookies["nexus"][:-1], "é"):
        header = {"cookie": f"nexus={value}".encode()}
        assert (await browser().client.get("/api/v1/auth/me", headers=header)).status_code == 401


async def test_what_has_ended_is_removed(access: AccessService, root: Browser, database: Database) -> None:
    def age(session: Any) -> None:
        session.scalars(select(SessionRow)).one().expires_at = datetime.now(UTC)

    await database.write(age)
    await access.remove_ended()
    assert await count(database, SessionRow) == 0


async def test_the_command_line_can_make_another_administrator(database: Database) -> None:
    access = make_access(database)
    await access.accounts.create_admin("one@example.com", PASSWORD)
    await access.accounts.create_admin("two@example.com", PASSWORD)
    assert await count(database, UserRow) == 2
    assert await count(database, ProjectRow) == 1
