"""Lists by page: `?limit=1..100 (20)&cursor=&order=` -> `{"data": [..], "has_more": bool, "next_cursor": str | null}`.

    @router.get("")
    async def list_runs(who: ..., page: Paged, runs: ...) -> dict[str, Any]:
        rows = await runs.list(who, after=page.after_id, limit=page.fetch, order=page.order)
        return page_of(rows, page, render=run_out)

A query asks for `page.fetch` rows, one more than the page has, beyond the key `page.after`. Ids sort by
time, so the id alone is the key of most lists: `WHERE id < :after ORDER BY id DESC LIMIT :fetch`, which stays
stable while rows are added. The cursor is that key, signed and bound to its list and order.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

import orjson
from fastapi import Depends, Query, Request

from nexus.core.secrets import Keyring
from nexus.http.errors import InvalidCursor

T = TypeVar("T")
Order = Literal["asc", "desc"]
Key = Sequence[str | int | float | None]

_SIGNATURE_BYTES: Final = 12
# For processes without a keyring (tests, tools): cursors then end with the process.
_OWN_KEY: Final = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Page:
    """What part of a list is asked for."""

    limit: int = 20
    order: Order = "desc"
    after: tuple[Any, ...] | None = None
    signer: Callable[[Key], str] | None = None

    @property
    def fetch(self) -> int:
        """How many rows to query: one more than asked for tells whether there are more."""
        return self.limit + 1

    @property
    def after_id(self) -> str | None:
        """The id to continue beyond, where the id alone is the key."""
        return str(self.after[0]) if self.after else None

    @property
    def descending(self) -> bool:
        """Whether the newest comes first."""
        return self.order == "desc"


class Cursors:
    """Writes and reads cursors of one list."""

    def __init__(self, sign: Callable[[bytes], bytes], bound_to: str) -> None:
        """`sign` is a keyed digest; `bound_to` names list and order: a cursor is of no use elsewhere."""
        self._sign = sign
        self._bound_to = bound_to.encode()

    def write(self, key: Key) -> str:
        """Return the cursor that continues beyond `key`."""
        body = orjson.dumps(list(key), default=str)
        return base64.urlsafe_b64encode(self._signature(body) + body).rstrip(b"=").decode()

    def read(self, cursor: str) -> tuple[Any, ...]:
        """Return the key of a cursor, or raise `InvalidCursor`."""
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
            if not hmac.compare_digest(signature, self._signature(body)):
                raise InvalidCursor(field="cursor")
            return tuple(orjson.loads(body))
        except ValueError:
            raise InvalidCursor(field="cursor") from None

    def _signature(self, body: bytes) -> bytes:
        return self._sign(self._bound_to + b"\0" + body)[:_SIGNATURE_BYTES]


def cursors_of(request: Request, order: str) -> Cursors:
    """Return the cursors of the list at this path, signed with the installation's key where there is one."""
    services = getattr(request.app.state, "services", None)
    bound_to = f"{request.url.path} {order}"
    if services is not None and Keyring in services:
        keyring = services.get(Keyring)
        return Cursors(lambda data: keyring.sign("cursor", data), bound_to)
    return Cursors(lambda data: hmac.digest(_OWN_KEY, data, "sha256"), bound_to)


async def page_params(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100, description="How many entries a page has.")] = 20,
    cursor: Annotated[str | None, Query(max_length=1024, description="`next_cursor` of the page before.")] = None,
    order: Annotated[Order, Query(description="By time: newest or oldest first.")] = "desc",
) -> Page:
    """Read the paging parameters of a request. Raises `InvalidCursor`."""
    cursors = cursors_of(request, order)
    after = cursors.read(cursor) if cursor else None
    return Page(limit=limit, order=order, after=after, signer=cursors.write)


Paged = Annotated[Page, Depends(page_params)]
"""The type of a route's parameter: `page: Paged`."""


def _by_id(row: Any) -> Key:
    return (row["id"] if isinstance(row, dict) else row.id,)


def page_of(
    rows: Sequence[T],
    page: Page,
    *,
    key: Callable[[T], Key] = _by_id,
    render: Callable[[T], Any] | None = None,
) -> dict[str, Any]:
    """Return the envelope of one page, given up to `page.fetch` rows in order.

    `key` gives what the next page continues beyond (by default the id), `render` the JSON of a row.
    """
    shown = rows[: page.limit]
    has_more = len(rows) > page.limit
    next_cursor = page.signer(key(shown[-1])) if has_more and page.signer else None
    data = [render(row) for row in shown] if render else list(shown)
    return {"data": data, "has_more": has_more, "next_cursor": next_cursor}
