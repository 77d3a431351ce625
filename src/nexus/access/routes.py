"""The routes of access: /api/v1/auth, /projects, /users, /keys, /audit-events."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response

from nexus.access import schemas
from nexus.access.accounts import SignIn, csrf_token
from nexus.access.audit import event_json
from nexus.access.credentials import PLAIN_COOKIE, SECURE_COOKIE, is_secure, origin_of
from nexus.access.errors import SessionEnded
from nexus.access.guard import caller, requires
from nexus.access.service import AccessService
from nexus.access.storage import SignedIn
from nexus.access.types import Principal, Scope
from nexus.http.depends import service
from nexus.http.paging import Paged, page_of

router = APIRouter(prefix="/api/v1", tags=["access"])

Access = Annotated[AccessService, service(AccessService)]
Anyone = Annotated[Principal, caller()]
Administrator = Annotated[Principal, requires(Scope.ADMIN)]
KeyManager = Annotated[Principal, requires(Scope.KEYS_MANAGE)]


@router.get("/auth/status", operation_id="auth.status")
async def auth_status(access: Access) -> dict[str, Any]:
    """Tell whether the first administrator is still to be made. Public."""
    return {"needs_setup": await access.accounts.needs_setup()}


@router.post("/auth/setup", status_code=201, operation_id="auth.setup")
async def set_up(body: schemas.SetupIn, request: Request, response: Response, access: Access) -> dict[str, Any]:
    """Make the first administrator with the one-time token, and sign them in. Public."""
    begun = await access.accounts.set_up(
        body.token, body.email, body.password, body.name, origin=origin_of(request.scope)
    )
    return await _sign_in(begun, request, response, access)


@router.post("/auth/login", operation_id="auth.login")
async def sign_in(body: schemas.LoginIn, request: Request, response: Response, access: Access) -> dict[str, Any]:
    """Sign in with address and password. Public."""
    begun = await access.accounts.sign_in(body.email, body.password, origin=origin_of(request.scope))
    return await _sign_in(begun, request, response, access)


@router.post("/auth/logout", status_code=204, operation_id="auth.logout")
async def sign_out(who: Anyone, request: Request, response: Response, access: Access) -> None:
    """End this session."""
    found = _session(request)
    await access.accounts.end_session(who, found.session.id, origin=origin_of(request.scope))
    response.delete_cookie(SECURE_COOKIE, path="/", secure=True, httponly=True, samesite="lax")
    response.delete_cookie(PLAIN_COOKIE, path="/", httponly=True, samesite="lax")


@router.get("/auth/me", operation_id="auth.me")
async def me(who: Anyone, request: Request, access: Access) -> dict[str, Any]:
    """Tell who is asking: user or key, project, rights, and the CSRF token of a session."""
    found: SignedIn | None = request.scope.get("nexus.session")
    return schemas.me_out(who, found, csrf_token(access.csrf_key, found.session.digest) if found else None)


@router.post("/auth/password", operation_id="auth.password")
async def change_password(
    body: schemas.PasswordIn, who: Anyone, request: Request, response: Response, access: Access
) -> dict[str, Any]:
    """Change one's own password; every other session ends and this one is renewed."""
    _session(request)
    begun = await access.accounts.change_password(
        who, body.current_password, body.new_password, origin=origin_of(request.scope)
    )
    return await _sign_in(begun, request, response, access)


@router.get("/auth/sessions", operation_id="auth.sessions.list")
async def list_sessions(who: Anyone, request: Request, access: Access) -> dict[str, Any]:
    """List one's own sessions, newest first."""
    found = _session(request)
    rows = await access.accounts.sessions(found.user.id)
    data = [schemas.session_out(row, found.session.id) for row in rows]
    return {"data": data, "has_more": False, "next_cursor": None}


@router.delete("/auth/sessions/{session_id}", status_code=204, operation_id="auth.sessions.delete")
async def end_session(session_id: str, who: Anyone, request: Request, access: Access) -> None:
    """End one of one's own sessions."""
    _session(request)
    await access.accounts.end_session(who, session_id, origin=origin_of(request.scope))


@router.get("/projects", operation_id="projects.list")
async def list_projects(who: Anyone, page: Paged, access: Access) -> dict[str, Any]:
    """List the projects that one may see, oldest first."""
    rows = await access.projects.page(who, after=page.after_id, limit=page.fetch)
    return page_of(rows, page, render=schemas.project_out)


@router.post("/projects", status_code=201, operation_id="projects.create")
async def create_project(
    body: schemas.ProjectIn, who: Administrator, request: Request, access: Access
) -> dict[str, Any]:
    """Make a project and become its owner."""
    return schemas.project_out(await access.projects.create(who, name=body.name, origin=origin_of(request.scope)))


@router.get("/projects/{project_id}", operation_id="projects.get")
async def get_project(project_id: str, who: Anyone, access: Access) -> dict[str, Any]:
    """Show one project."""
    return schemas.project_out(await access.projects.get(who, project_id))


@router.patch("/projects/{project_id}", operation_id="projects.update")
async def change_project(
    project_id: str, body: schemas.ProjectPatch, who: Anyone, request: Request, access: Access
) -> dict[str, Any]:
    """Rename a project, or as a platform administrator set the limits of all its calls together."""
    row = await access.projects.change(who, project_id, body.changes(), origin=origin_of(request.scope))
    return schemas.project_out(row)


@router.delete("/projects/{project_id}", status_code=204, operation_id="projects.delete")
async def archive_project(project_id: str, who: Administrator, request: Request, access: Access) -> None:
    """Close a project: its keys stop at once, its data stays."""
    await access.projects.archive(who, project_id, origin=origin_of(request.scope))


@router.get("/projects/{project_id}/members", operation_id="members.list")
async def list_members(project_id: str, who: Anyone, access: Access) -> dict[str, Any]:
    """List who is in a project."""
    data = [schemas.member_out(found) for found in await access.projects.members(who, project_id)]
    return {"data": data, "has_more": False, "next_cursor": None}


@router.post("/projects/{project_id}/members", status_code=201, operation_id="members.create")
async def add_member(
    project_id: str, body: schemas.MemberIn, who: Anyone, request: Request, access: Access
) -> dict[str, Any]:
    """Give a user a role in a project."""
    origin = origin_of(request.scope)
    return schemas.member_out(
        await access.projects.add_member(who, project_id, email=body.email, role=body.role, origin=origin)
    )


@router.patch("/projects/{project_id}/members/{user_id}", operation_id="members.update")
async def change_member(
    project_id: str, user_id: str, body: schemas.MemberPatch, who: Anyone, request: Request, access: Access
) -> dict[str, Any]:
    """Change a member's role; their sessions end."""
    origin = origin_of(request.scope)
    return schemas.member_out(
        await access.projects.change_member(who, project_id, user_id, role=body.role, origin=origin)
    )


@router.delete("/projects/{project_id}/members/{user_id}", status_code=204, operation_id="members.delete")
async def remove_member(project_id: str, user_id: str, who: Anyone, request: Request, access: Access) -> None:
    """Take a member out of a project."""
    await access.projects.remove_member(who, project_id, user_id, origin=origin_of(request.scope))


@router.get("/users", operation_id="users.list")
async def list_users(who: Administrator, page: Paged, access: Access) -> dict[str, Any]:
    """List all users, oldest first."""
    rows = await access.users.page(who, after=page.after_id, limit=page.fetch)
    return page_of(rows, page, render=schemas.user_out)


@router.post("/users", status_code=201, operation_id="users.create")
async def create_user(body: schemas.UserIn, who: Administrator, request: Request, access: Access) -> dict[str, Any]:
    """Make a user."""
    return schemas.user_out(
        await access.users.create(
            who,
            email=body.email,
            password=body.password,
            name=body.name,
            superadmin=body.superadmin,
            origin=origin_of(request.scope),
        )
    )


@router.get("/users/{user_id}", operation_id="users.get")
async def get_user(user_id: str, who: Anyone, access: Access) -> dict[str, Any]:
    """Show a user: oneself, or anybody for an administrator."""
    return schemas.user_out(await access.users.get(who, user_id))


@router.patch("/users/{user_id}", operation_id="users.update")
async def change_user(
    user_id: str, body: schemas.UserPatch, who: Administrator, request: Request, access: Access
) -> dict[str, Any]:
    """Rename, promote, demote, disable a user or set their password; a change of rights ends their sessions."""
    origin = origin_of(request.scope)
    row = await access.users.change(
        who, user_id, name=body.name, superadmin=body.superadmin, disabled=body.disabled, origin=origin
    )
    if body.password is not None:
        await access.users.set_password(who, user_id, body.password, origin=origin)
    return schemas.user_out(row)


@router.delete("/users/{user_id}", operation_id="users.delete")
async def disable_user(user_id: str, who: Administrator, request: Request, access: Access) -> dict[str, Any]:
    """Disable a user: sessions and keys stop at once, what they made stays."""
    return schemas.user_out(await access.users.change(who, user_id, disabled=True, origin=origin_of(request.scope)))


@router.get("/keys", operation_id="keys.list")
async def list_keys(who: Anyone, page: Paged, access: Access) -> dict[str, Any]:
    """List the project's API keys, newest first: all with `keys:manage`, else one's own."""
    views = await access.keys.page(who, after=page.after_id, limit=page.fetch)
    return page_of(views, page, key=lambda view: (view.row.id,), render=schemas.key_out)


@router.post("/keys", status_code=201, operation_id="keys.create")
async def create_key(
    body: schemas.KeyIn, who: Anyone, request: Request, response: Response, access: Access
) -> dict[str, Any]:
    """Make an API key. The answer is the only place where it is ever shown."""
    response.headers["cache-control"] = "no-store"
    view = await access.keys.create(
        who,
        name=body.name,
        scopes=body.scopes,
        models=body.models,
        cidrs=body.cidrs,
        limits=body.limits(),
        expires_at=body.expires_at,
        origin=origin_of(request.scope),
    )
    return schemas.key_out(view)


@router.get("/keys/{key_id}", operation_id="keys.get")
async def get_key(key_id: str, who: Anyone, access: Access) -> dict[str, Any]:
    """Show an API key's attributes."""
    return schemas.key_out(await access.keys.get(who, key_id))


@router.patch("/keys/{key_id}", operation_id="keys.update")
async def change_key(
    key_id: str, body: schemas.KeyPatch, who: Anyone, request: Request, access: Access
) -> dict[str, Any]:
    """Change an API key's attributes."""
    return schemas.key_out(await access.keys.change(who, key_id, body.changes(), origin=origin_of(request.scope)))


@router.post("/keys/{key_id}/rotate", status_code=201, operation_id="keys.rotate")
async def rotate_key(
    key_id: str,
    who: Anyone,
    request: Request,
    response: Response,
    access: Access,
    body: Annotated[schemas.RotateIn | None, Body()] = None,
) -> dict[str, Any]:
    """Give an API key a new secret; the old one goes on for the overlap."""
    response.headers["cache-control"] = "no-store"
    overlap = body.overlap_hours if body else None
    view = await access.keys.rotate(who, key_id, overlap_hours=overlap, origin=origin_of(request.scope))
    return schemas.key_out(view)


@router.delete("/keys/{key_id}", status_code=204, operation_id="keys.delete")
async def revoke_key(key_id: str, who: Anyone, request: Request, access: Access) -> None:
    """Revoke an API key for good."""
    await access.keys.revoke(who, key_id, origin=origin_of(request.scope))


@router.get("/audit-events", operation_id="audit.list")
async def list_audit_events(
    who: KeyManager,
    page: Paged,
    access: Access,
    action: Annotated[str | None, Query(max_length=64)] = None,
    all_projects: Annotated[bool, Query(description="Every project's events, for a platform administrator.")] = False,
) -> dict[str, Any]:
    """List what was done in the project, newest first."""
    after = int(page.after_id) if page.after_id else None
    rows = await access.audit.events(who, after=after, limit=page.fetch, action=action, all_projects=all_projects)
    return page_of(rows, page, key=lambda row: (row.seq,), render=event_json)


def _session(request: Request) -> SignedIn:
    """Return the session of a request that only a browser session may make."""
    found = request.scope.get("nexus.session")
    if not isinstance(found, SignedIn):
        raise SessionEnded("This needs a signed-in session, not an API key.")
    return found


async def _sign_in(begun: SignIn, request: Request, response: Response, access: AccessService) -> dict[str, Any]:
    """Set the cookie and show who has signed in."""
    secure = is_secure(request.scope, access.public_url)
    cookie = begun.cookie.reveal()
    response.set_cookie(
        SECURE_COOKIE if secure else PLAIN_COOKIE,
        cookie,
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
        max_age=int(access.settings.session_days * 86_400),
    )
    response.headers["cache-control"] = "no-store"
    principal, found = await access.accounts.signed_in(cookie, None)
    return schemas.me_out(principal, found, csrf_token(access.csrf_key, found.session.digest))
