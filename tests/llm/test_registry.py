"""What names mean, and which configurations are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from nexus.llm.errors import UnknownModel
from nexus.llm.provider import Provider
from nexus.llm.registry import ConfigurationInvalid, Registry, compatible_rows
from nexus.llm.settings import LLMSettings, ProviderSettings

UP = {"name": "up", "kind": "openai", "api_key": "sk-secret-of-the-provider"}

WHERE = {"provider": "up", "model": "m"}


def registry(**given: Any) -> Registry:
    return Registry(LLMSettings(**given))


def test_a_bare_installation_has_the_built_in_models() -> None:
    cards = {card.name: card for card in registry().cards()}
    assert set(cards) == {"nexus-local", "minilm-l6-v2"}
    assert cards["nexus-local"].demo
    assert not cards["minilm-l6-v2"].demo
    assert registry(local={"enabled": False}, embeddings={"enabled": False}).cards() == []


def test_a_route_a_direct_name_and_a_stranger() -> None:
    found = registry(
        providers=[UP],
        routes=[{"name": "gpt-4o", "deployments": [{"provider": "up", "model": "gpt-4o", "price": {"input": 9}}]}],
    )
    route = found.find("gpt-4o")
    assert route.deployments[0].price is not None
    assert route.deployments[0].price.input == 9
    direct = found.find("up/org/model:tag")
    assert (direct.deployments[0].model, direct.deployments[0].price) == ("org/model:tag", None)
    assert found.find("up/gpt-4o").deployments[0].price is None, "nobody waits for it here"
    found.price("up/gpt-4o")
    known = found.find("up/gpt-4o").deployments[0].price
    assert known is not None
    assert known.input == 2.5
    for stranger in ("gpt-4", "other/x", "up/", "/x", "", "up/" + "x" * 300, "built-in/minilm-l6-v2"):
        with pytest.raises(UnknownModel) as caught:
            found.find(stranger)
        assert caught.value.field == "model"
    with pytest.raises(UnknownModel):
        found.find("minilm-l6-v2")
    with pytest.raises(UnknownModel):
        found.find("gpt-4o", task="embedding")


@pytest.mark.parametrize("name", sorted(compatible_rows()))
def test_every_compatible_row_makes_a_working_kind(name: str) -> None:
    found = registry(providers=[{"name": "x", "kind": name}])
    account, plug = found.account("x")
    assert isinstance(plug, Provider)
    assert account.base_url.startswith("http")
    assert not account.base_url.endswith("/")


def test_a_key_comes_from_the_settings_or_the_usual_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "gsk-from-the-environment")
    found = registry(
        providers=[{"name": "a", "kind": "groq"}, {"name": "b", "kind": "groq", "api_key": "own-key-12345"}]
    )
    secrets = [found.account(name)[0].secret for name in ("a", "b")]
    assert [secret and secret.reveal() for secret in secrets] == ["gsk-from-the-environment", "own-key-12345"]
    assert "own-key" not in repr(found.account("b"))
    assert registry(providers=[{"name": "c", "kind": "vllm"}]).account("c")[0].secret is None


@pytest.mark.parametrize(
    "given",
    [
        {"providers": [{"name": "x", "kind": "nonsense"}]},
        {"providers": [{"name": "local", "kind": "openai"}]},
        {"providers": [{"name": "built-in", "kind": "openai"}]},
        {
            "providers": [UP],
            "routes": [{"name": "r", "deployments": [{"provider": "up", "model": "m"}], "fallbacks": ["z"]}],
        },
        {
            "providers": [UP],
            "routes": [{"name": "r", "deployments": [{"provider": "up", "model": "m"}], "fallbacks": ["nexus-local"]}],
        },
    ],
)
def test_what_cannot_work_is_refused_at_start(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        registry(**given)
    assert "sk-secret" not in caught.value.message


@pytest.mark.parametrize(
    "given",
    [
        {"providers": [UP, UP]},
        {"routes": [{"name": "r", "deployments": [{"provider": "nobody", "model": "m"}]}]},
        {"routes": [{"name": "r", "deployments": []}]},
        {"providers": [UP | {"base_url": "ftp://x"}]},
        {"providers": [UP | {"base_url": "http://user:pw@x/v1"}]},
        {"providers": [UP | {"base_url": "http://x/v1?key=1"}]},
        {"providers": [UP | {"name": "a/b"}]},
        {"timeouts": {"total": 0}},
        {"timeouts": {"typo": 1}},
    ],
)
def test_settings_refuse_nonsense(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LLMSettings(**given)


def test_options_of_a_kind_are_kept() -> None:
    given = ProviderSettings(name="aws", kind="bedrock", region="us-east-1")  # type: ignore[call-arg]
    assert given.options() == {"region": "us-east-1"}
