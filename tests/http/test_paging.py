from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from nexus.core.secrets import Keyring
from nexus.core.services import Services
from nexus.http.handlers import install
from nexus.http.paging import Paged, page_of

ROWS = [{"id": f"row_{number:03}"} for number in range(45)]


def make_client(root: bytes = b"k" * 32) -> TestClient:
    app = FastAPI()
    install(app)
    app.state.services = Services()
    app.state.services.put(Keyring(root))

    @app.get("/api/v1/rows")
    async def rows(page: Paged) -> dict[str, Any]:
        ordered = sorted(ROWS, key=lambda row: row["id"], reverse=page.descending)
        after = page.after_id
        found = [
            row for row in ordered if after is None or (row["id"] < after if page.descending else row["id"] > after)
        ]
        return page_of(found[: page.fetch], page)

    @app.get("/api/v1/others")
    async def others(page: Paged) -> dict[str, Any]:
        return page_of([], page)

    return TestClient(app)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 7, 44, 45, 46, 100])
def test_pages_hold_every_row_once(order: str, limit: int) -> None:
    client = make_client()
    seen: list[str] = []
    params: dict[str, Any] = {"limit": limit, "order": order}
    while True:
        page = client.get("/api/v1/rows", params=params).json()
        seen += [row["id"] for row in page["data"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == sorted((row["id"] for row in ROWS), reverse=order == "desc")


def test_the_default_is_twenty_newest_first() -> None:
    page = make_client().get("/api/v1/rows").json()
    assert len(page["data"]) == 20
    assert page["data"][0]["id"] == "row_044"


@pytest.mark.parametrize("limit", [0, -1, 101, "many", "1e1"])
def test_limits_outside_1_to_100_are_refused(limit: Any) -> None:
    answer = make_client().get("/api/v1/rows", params={"limit": limit})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/limit"


def test_foreign_cursors_are_refused() -> None:
    client = make_client()
    cursor = client.get("/api/v1/rows").json()["next_cursor"]
    middle = len(cursor) // 2
    flipped = cursor[:middle] + ("A" if cursor[middle] != "A" else "B") + cursor[middle + 1 :]
    cases = [
        ("/api/v1/rows", {"cursor": flipped}),
        ("/api/v1/rows", {"cursor": "row_044"}),
        ("/api/v1/rows", {"cursor": "é"}),
        ("/api/v1/rows", {"cursor": cursor[:-3]}),
        ("/api/v1/rows", {"cursor": cursor, "order": "asc"}),
        ("/api/v1/others", {"cursor": cursor}),
    ]
    for path, params in cases:
        answer = client.get(path, params=params)
        assert answer.status_code == 422, (path, params)
        assert answer.json()["code"] == "invalid_cursor"
    assert make_client(b"z" * 32).get("/api/v1/rows", params={"cursor": cursor}).status_code == 422
    assert make_client().get("/api/v1/rows", params={"cursor": cursor}).status_code == 200
