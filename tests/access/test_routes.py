"""Projects, members, users and keys over HTTP: what each may do, and what nobody may."""

from __future__ import annotations

from typing import Any

import pytest

from nexus.access.roles import SCOPES, Role
from nexus.access.types import Scope

from .conftest import PASSWORD, Browser

FORBIDDEN_FIELDS = {
    "id": "x",
    "project_id": "prj_x",
    "user_id": "usr_x",
    "password_hash": "x",
    "is_admin": True,
    "created_at": "2026-01-01T00:00:00Z",
    "created_by": "usr_x",
    "revoked_at": None,
    "disabled_at": None,
    "last_used_at": None,
    "digest": "x",
}

BODIES = [
    ("POST", "/api/v1/auth/setup", {"token": "t", "email": "a@b.c", "password": PASSWORD}),
    ("POST", "/api/v1/auth/login", {"email": "a@b.c", "password": PASSWORD}),
    ("POST", "/api/v1/auth/password", {"current_password": PASSWORD, "new_password": "another long sentence"}),
    ("POST", "/api/v1/projects", {"name": "p"}),
    ("PATCH", "/api/v1/projects/x", {"name": "p"}),
    ("POST", "/api/v1/projects/x/members", {"email": "a@b.c", "role": "viewer"}),
    ("PATCH", "/api/v1/projects/x/members/y", {"role": "viewer"}),
    ("POST", "/api/v1/users", {"email": "a@b.c", "password": PASSWORD}),
    ("PATCH", "/api/v1/users/x", {"name": "n"}),
    ("POST", "/api/v1/keys", {"name": "k", "scopes": ["llm:invoke"]}),
    ("PATCH", "/api/v1/keys/x", {"name": "k"}),
    ("POST", "/api/v1/keys/x/rotate", {"overlap_hours": 1}),
]


@pytest.mark.parametrize(("method", "path", "body"), BODIES)
async def test_no_route_takes_a_field_it_does_not_know(root: Browser, method: str, path: str, body: Any) -> None:
    for name, value in FORBIDDEN_FIELDS.items():
        response = await root.client.request(method, path, json=body | {name: value})
        assert response.status_code == 422, name
        assert response.json()["errors"][0]["pointer"] == f"/{name}"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "k"}, "scopes"),
        ({"name": "k", "scopes": []}, "scopes"),
        ({"name": "k", "scopes": ["root"]}, "scopes"),
        ({"name": "k", "scopes": "llm:invoke"}, "scopes"),
        ({"name": "", "scopes": ["llm:invoke"]}, "name"),
        ({"name": "a\nb", "scopes": ["llm:invoke"]}, "name"),
        ({"name": "k" * 121, "scopes": ["llm:invoke"]}, "name"),
        ({"name": "k", "scopes": ["llm:invoke"], "rpm": 0}, "rpm"),
        ({"name": "k", "scopes": ["llm:invoke"], "rpm": 2**31}, "rpm"),
        ({"name": "k", "scopes": ["llm:invoke"], "rpm": "5"}, "rpm"),
        ({"name": "k", "scopes": ["llm:invoke"], "rpm": True}, "rpm"),
        ({"name": "k", "scopes": ["llm:invoke"], "budget_usd": -1}, "budget_usd"),
        ({"name": "k", "scopes": ["llm:invoke"], "budget_usd": 1e300}, "budget_usd"),
        ({"name": "k", "scopes": ["llm:invoke"], "budget_period": "year"}, "budget_period"),
        ({"name": "k", "scopes": ["llm:invoke"], "cidrs": ["nowhere"]}, "cidrs"),
        ({"name": "k", "scopes": ["llm:invoke"], "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "k", "scopes": ["llm:invoke"], "expires_at": "2030-01-01T00:00:00"}, "expires_at"),
    ],
)
async def test_bad_keys_are_refused_by_field(root: Browser, body: dict[str, Any], field: str) -> None:
    response = await root.client.post("/api/v1/keys", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"].startswith(f"/{field}")


@pytest.mark.parametrize("role", Role)
async def test_the_scope_matrix_holds_at_the_routes(person: Any, role: Role) -> None:
    one = await person(role.value)
    for scope in Scope:
        response = await one.client.get(f"/api/v1/probe/{scope.value.replace(':', '.')}")
        assert (response.status_code == 200) is (scope in SCOPES[role]), scope


async def test_a_key_is_made_used_changed_rotated_and_revoked(root: Browser) -> None:
    made = await root.client.post("/api/v1/keys", json={"name": "k", "scopes": ["usage:read"], "rpm": 5})
    assert made.status_code == 201
    body = made.json()
    assert body["key"].startswith(body["prefixes"][0])
    url = f"/api/v1/keys/{body['id']}"
    shown = await root.client.get(url)
    assert "key" not in shown.json()
    assert body["key"].split("_")[2] not in shown.text
    changed = await root.client.patch(url, json={"rpm": None, "name": "renamed", "scopes": None})
    assert (changed.json()["rpm"], changed.json()["name"], changed.json()["scopes"]) == (
        None,
        "renamed",
        ["usage:read"],
    )
    rotated = await root.client.post(f"{url}/rotate", json={"overlap_hours": 0})
    assert rotated.status_code == 201
    assert rotated.json()["key"] != body["key"]
    assert (await root.client.post(f"{url}/rotate")).status_code == 201
    assert (await root.client.delete(url)).status_code == 204
    assert (await root.client.get(url)).json()["revoked_at"] is not None
    listed = (await root.client.get("/api/v1/keys")).json()
    assert [entry["id"] for entry in listed["data"]] == [body["id"]]


async def test_lists_page(root: Browser) -> None:
    for i in range(5):
        await root.client.post("/api/v1/keys", json={"name": f"k{i}", "scopes": ["usage:read"]})
    seen: list[str] = []
    url = "/api/v1/keys?limit=2"
    while url:
        page = (await root.client.get(url)).json()
        seen += [entry["name"] for entry in page["data"]]
        url = f"/api/v1/keys?limit=2&cursor={page['next_cursor']}" if page["has_more"] else ""
    assert seen == ["k4", "k3", "k2", "k1", "k0"]
    trail = (await root.client.get("/api/v1/audit-events?limit=3")).json()
    assert [event["action"] for event in trail["data"]] == ["key.create"] * 3
    rest = (await root.client.get(f"/api/v1/audit-events?limit=100&cursor={trail['next_cursor']}")).json()
    assert rest["data"][0]["id"] == trail["data"][-1]["id"] - 1


async def test_another_projects_things_are_not_there(root: Browser, person: Any) -> None:
    other = (await root.client.post("/api/v1/projects", json={"name": "other"})).json()["id"]
    stranger = await person("owner", "stranger", project_id=other)
    key = (await root.client.post("/api/v1/keys", json={"name": "k", "scopes": ["usage:read"]})).json()["id"]
    mine = root.me["project_id"]
    for method, path, body in [
        ("GET", f"/api/v1/keys/{key}", None),
        ("PATCH", f"/api/v1/keys/{key}", {"name": "x"}),
        ("POST", f"/api/v1/keys/{key}/rotate", {}),
        ("DELETE", f"/api/v1/keys/{key}", None),
        ("GET", f"/api/v1/projects/{mine}", None),
        ("PATCH", f"/api/v1/projects/{mine}", {"name": "x"}),
        ("GET", f"/api/v1/projects/{mine}/members", None),
        ("POST", f"/api/v1/projects/{mine}/members", {"email": "stranger@example.com", "role": "owner"}),
        ("PATCH", f"/api/v1/projects/{mine}/members/{root.me['id']}", {"role": "viewer"}),
        ("DELETE", f"/api/v1/projects/{mine}/members/{root.me['id']}", None),
    ]:
        response = await stranger.client.request(method, path, json=body)
        assert response.status_code == 404, (method, path)
    assert (await stranger.client.get("/api/v1/keys")).json()["data"] == []
    assert [row["id"] for row in (await stranger.client.get("/api/v1/projects")).json()["data"]] == [other]
    crossing = await stranger.client.get("/api/v1/keys", headers={"x-nexus-project": mine})
    assert (crossing.status_code, crossing.json()["code"]) == (404, "project_not_found")


async def test_a_member_of_two_projects_chooses_by_header(root: Browser, person: Any) -> None:
    other = (await root.client.post("/api/v1/projects", json={"name": "other"})).json()["id"]
    one = await person("viewer", "both")
    url = f"/api/v1/projects/{other}/members"
    await root.client.post(url, json={"email": "both@example.com", "role": "owner"})
    there = (await one.client.get("/api/v1/auth/me", headers={"x-nexus-project": other})).json()
    here = (await one.client.get("/api/v1/auth/me")).json()
    assert (there["project_id"], there["role"]) == (other, "owner")
    assert here["role"] == "viewer"


@pytest.mark.parametrize("role", ["admin", "developer", "operator", "viewer"])
async def test_nobody_makes_themselves_owner(person: Any, role: str) -> None:
    one = await person(role)
    mine = f"/api/v1/projects/{one.me['project_id']}/members/{one.me['id']}"
    response = await one.client.patch(mine, json={"role": "owner"})
    assert (response.status_code, response.json()["code"]) == (403, "role_not_allowed")
    for path, body in [
        ("/api/v1/users", {"email": "x@example.com", "password": PASSWORD}),
        ("/api/v1/projects", {"name": "x"}),
    ]:
        assert (await one.client.post(path, json=body)).status_code == 403
    assert (await one.client.patch(f"/api/v1/users/{one.me['id']}", json={"superadmin": True})).status_code == 403


async def test_somebody_must_stay(root: Browser) -> None:
    mine = f"/api/v1/projects/{root.me['project_id']}/members/{root.me['id']}"
    for response in (
        await root.client.patch(mine, json={"role": "viewer"}),
        await root.client.delete(mine),
        await root.client.patch(f"/api/v1/users/{root.me['id']}", json={"superadmin": False}),
        await root.client.delete(f"/api/v1/users/{root.me['id']}"),
    ):
        assert (response.status_code, response.json()["code"]) == (409, "last_owner")
    assert (await root.client.get("/api/v1/auth/me")).json()["role"] == "owner"


async def test_an_archived_project_lets_nobody_in(root: Browser, person: Any) -> None:
    other = (await root.client.post("/api/v1/projects", json={"name": "other"})).json()["id"]
    one = await person("owner", "owner2", project_id=other)
    made = await one.client.post("/api/v1/keys", json={"name": "k", "scopes": ["usage:read"]})
    header = {"x-api-key": made.json()["key"]}
    assert (await root.client.get("/v1/x", headers=header)).status_code == 200
    assert (await root.client.delete(f"/api/v1/projects/{other}")).status_code == 204
    assert (await root.client.get("/v1/x", headers=header)).status_code == 401
    assert (await one.client.get("/api/v1/auth/me")).json()["project_id"] is None


async def test_an_api_key_is_no_person(root: Browser, browser: Any) -> None:
    body = {"name": "k", "scopes": [scope.value for scope in Scope]}
    key = (await root.client.post("/api/v1/keys", json=body)).json()["key"]
    client = browser().client
    client.headers["authorization"] = f"Bearer {key}"
    me = (await client.get("/api/v1/auth/me")).json()
    assert (me["kind"], me["csrf_token"], me["user"]) == ("key", None, None)
    for method, path, sent in [
        ("POST", "/api/v1/auth/logout", None),
        ("GET", "/api/v1/auth/sessions", None),
        ("POST", "/api/v1/auth/password", {"current_password": PASSWORD, "new_password": "another long sentence"}),
    ]:
        assert (await client.request(method, path, json=sent)).status_code == 401


async def test_addresses_are_unique_whatever_their_case(root: Browser) -> None:
    body = {"email": "A@Example.com", "password": PASSWORD}
    assert (await root.client.post("/api/v1/users", json=body)).status_code == 201
    again = await root.client.post("/api/v1/users", json=body | {"email": "a@example.COM"})
    assert (again.status_code, again.json()["code"]) == (409, "email_taken")


@pytest.mark.parametrize("email", ["", "x", "@", "a@", "@b", "a b@c", "a\x00@b.c", "a" * 300 + "@b.c", None, 5])
async def test_what_is_no_address_is_refused(root: Browser, email: Any) -> None:
    response = await root.client.post("/api/v1/users", json={"email": email, "password": PASSWORD})
    assert response.status_code == 422


async def test_a_refused_password_is_not_repeated(root: Browser) -> None:
    response = await root.client.post("/api/v1/users", json={"email": "a@b.c", "password": "hunter2hunter2" * 30})
    assert response.status_code == 422
    assert "hunter2" not in response.text
