"""`/hooks/approvals?token=..`: where links to approvals lead. GET shows the question, POST of its form answers it.

Public, as the token says whose right it carries; it stands in the query, which no log has. Plain HTML, no script.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final
from urllib.parse import parse_qs

import orjson

from nexus.automation.approval_links import PATH, ApprovalLinks
from nexus.automation.approvals import Approval, Verdict
from nexus.automation.errors import ApprovalLinkInvalid
from nexus.core.errors import InvalidInput
from nexus.core.services import Services
from nexus.http.body import read_body
from nexus.http.types import Handler, Receive, Scope, Send

_BODY_LIMIT: Final = 64 * 1024
_COMMENT: Final = 10_000
_VERDICTS: Final[Mapping[str, Verdict]] = {"approve": "approved", "reject": "rejected"}


async def show(scope: Scope, _receive: Receive, send: Send) -> None:
    """Show the question, with a form while it waits for an answer."""
    token = _token(scope)
    await _page(send, await _links(scope).show(token), token)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Take the form: `verdict` is approve or reject, `comment` what is said to it."""
    token = _token(scope)
    form = _fields(await read_body(receive, _BODY_LIMIT))
    verdict = _VERDICTS.get(form.get("verdict", ""))
    if verdict is None:
        raise InvalidInput("A verdict is approve or reject.", field="verdict")
    if len(form.get("comment", "")) > _COMMENT:
        raise InvalidInput(f"A comment has at most {_COMMENT} characters.", field="comment")
    await _page(send, await _links(scope).decide(token, verdict, form.get("comment") or None), token)


def _links(scope: Scope) -> ApprovalLinks:
    services: Services = scope["app_services"]
    return services.get(ApprovalLinks)


def _token(scope: Scope) -> str:
    given = _fields(scope["query_string"])
    if "token" not in given:
        raise ApprovalLinkInvalid
    return given["token"]


def _fields(text: bytes) -> dict[str, str]:
    try:
        found = parse_qs(text.decode(), errors="strict", max_num_fields=10)
    except ValueError:
        raise InvalidInput("The form cannot be read.") from None
    return {name: values[0].replace("\0", "") for name, values in found.items()}


async def _page(send: Send, approval: Approval, token: str) -> None:
    data = "" if approval.data is None else orjson.dumps(approval.data, option=orjson.OPT_INDENT_2).decode()
    shown = f"<p>{escape(approval.message)}</p>" + (f"<pre>{escape(data)}</pre>" if data else "")
    if approval.status == "pending":
        action = f"{PATH.rpartition('/')[2]}?token={escape(token, quote=True)}"
        shown += (
            f'<form method="post" action="{action}"><p><label>Comment<br>'
            f'<textarea name="comment" rows="3" cols="60" maxlength="{_COMMENT}"></textarea></label></p>'
            '<button name="verdict" value="approve">Approve</button> '
            '<button name="verdict" value="reject">Reject</button></form>'
        )
    else:
        shown += f"<p><strong>{escape(approval.status.capitalize())}</strong>. This link is of no more use.</p>"
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Approval</title>'
        '<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex"></head>'
        f"<body><h1>Approval</h1>{shown}</body></html>"
    ).encode()
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


APPROVAL_DOOR: Final[dict[tuple[str, str], Handler]] = {("GET", PATH): show, ("POST", PATH): answer}
