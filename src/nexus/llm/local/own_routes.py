"""Routes to the models of this machine beside the built-in one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from nexus.llm.account import Account
from nexus.llm.local.children import MODEL, LocalModel
from nexus.llm.provider import Provider
from nexus.llm.types import Deployment, Price, Route, Timeouts

LOCAL_ACCOUNT = "local"
# A model on a CPU reads its prompt slowly, and may have to start first.
SLOW = Timeouts(connect=5, first_token=180, between_tokens=60, total=600)
Accounts: TypeAlias = dict[str, tuple[Account, Provider]]


class LocalRoutes(msgspec.Struct):
    """Routes by project ("" for every one) and name."""

    routes: dict[str, dict[str, Route]] = msgspec.field(default_factory=dict)
    accounts: Accounts = msgspec.field(default_factory=dict)
    not_here: frozenset[str] = frozenset()

    def find(self, name: str, project: str) -> Route | None:
        """Return the route to the project's own model of this name, else to everybody's."""
        return self.routes.get(project, {}).get(name) or self.routes.get("", {}).get(name)

    def of(self, project: str) -> list[Route]:
        """Return the routes that a project may ask for."""
        return list((self.routes.get("", {}) | self.routes.get(project, {})).values())


def local_routes(models: Iterable[LocalModel], *, not_here: Iterable[str], plug: Provider) -> LocalRoutes:
    """Return routes to these models, each with an account of its own; `not_here` names those that must be pulled."""
    made = LocalRoutes(not_here=frozenset(not_here))
    for model in models:
        account = f"{LOCAL_ACCOUNT}:{model.key}"
        options = {MODEL: model}
        made.accounts[account] = (
            Account(name=account, kind=LOCAL_ACCOUNT, base_url=plug.base_url, options=options),
            plug,
        )
        able = msgspec.structs.replace(plug.capabilities, context_tokens=model.context, tools=model.tools, demo=False)
        place = Deployment(provider=account, model=model.name, capabilities=able, price=Price(input=0, output=0))
        route = Route(name=model.name, deployments=(place,), timeouts=SLOW, built_in=True)
        made.routes.setdefault(model.project, {})[model.name] = route
    return made
