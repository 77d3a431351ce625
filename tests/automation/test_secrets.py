"""Secrets reach the step that asks for them, and nothing that anybody can read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, ClassVar

import orjson
import pytest
from sqlalchemy import text
from tests.automation.conftest import Shop

from nexus.automation.errors import SecretInvalid, SecretNotFound, WorkflowInvalid
from nexus.automation.step import STEPS, StepModel
from nexus.core.errors import InvalidInput
from nexus.core.secrets import SecretError
from nexus.runs.types import StepContext
from nexus.storage.db import Database

VALUE = 'hush-hush-"42"-and-more'


class TellInputs(StepModel):
    token: str
    fail: bool = False


class TellOutputs(StepModel):
    said: str


class Tell:
    """A step that talks too much."""

    uses: ClassVar[str] = "test.tell"
    summary: ClassVar[str] = "Say it."
    queue: ClassVar[str] = "default"
    Inputs: ClassVar[type[StepModel]] = TellInputs
    Outputs: ClassVar[type[StepModel]] = TellOutputs
    heard: ClassVar[list[str]] = []

    async def run(self, context: StepContext, inputs: Any) -> StepModel:
        self.heard.append(inputs.token)
        context.log(f"the token is {inputs.token}")
        context.artifact("file_1", f"{inputs.token}.txt", 1)
        await context.save({"token": inputs.token})
        if inputs.fail:
            raise InvalidInput(f"The token {inputs.token} is wrong.")
        return TellOutputs(said=f"I said {inputs.token}")


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch) -> Tell:
    plug = Tell()
    plug.heard.clear()
    STEPS.names()
    monkeypatch.setitem(STEPS._modules, plug.uses, __name__)
    monkeypatch.setitem(STEPS._loaded, plug.uses, plug)
    return plug


@pytest.mark.parametrize("fail", [False, True])
async def test_the_value_is_in_no_table(tell: Tell, shop: Shop, database: Database, fail: bool) -> None:
    await shop.secrets.put(shop.who, "TOKEN", VALUE)
    step = {"key": "a", "uses": "test.tell", "with": {"token": "{{ secrets.TOKEN }}", "fail": fail}}
    run = await shop.run({"steps": [step], "outputs": {"said": "{{ steps.a.output.said }}"}})
    assert tell.heard == [VALUE]
    if fail:
        assert run.error is not None
        assert run.error.message == "The token *** is wrong."
    else:
        assert run.result == {"said": "I said ***"}
    dump = []
    with database.engine.connect() as connection:
        for (table,) in connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).all():
            dump += [str(row) for row in connection.execute(text(f'SELECT * FROM "{table}"'))]
    told = "\n".join(dump)
    assert "the token is ***" in told
    assert "hush" not in told


async def test_a_missing_secret_fails_the_step(tell: Tell, shop: Shop) -> None:
    run = await shop.run({"steps": [{"key": "a", "uses": "test.tell", "with": {"token": "{{ secrets.NONE }}"}}]})
    assert run.error is not None
    assert run.error.message == "There is no NONE."


@pytest.mark.parametrize("template", ["{{ secrets }}", "{{ secrets[inputs.x] }}", "{{ len(secrets) }}"])
async def test_secrets_are_asked_for_by_name_only(tell: Tell, shop: Shop, template: str) -> None:
    step = {"key": "a", "uses": "test.tell", "with": {"token": template}}
    with pytest.raises(WorkflowInvalid):
        await shop.start({"inputs": {"x": {}}, "steps": [step]})


@pytest.mark.parametrize("place", ["when", "map"])
async def test_conditions_and_maps_know_no_secrets(tell: Tell, shop: Shop, place: str) -> None:
    step = {"key": "a", "uses": "test.tell", "with": {"token": "x"}, place: "{{ secrets.TOKEN == 'a' }}"}
    with pytest.raises(WorkflowInvalid):
        await shop.start({"steps": [step]})


async def test_what_inputs_say_is_never_rendered(tell: Tell, shop: Shop) -> None:
    await shop.secrets.put(shop.who, "TOKEN", VALUE)
    step = {"key": "a", "uses": "test.tell", "with": {"token": "{{ inputs.x }}"}}
    await shop.run({"inputs": {"x": {}}, "steps": [step]}, x="{{ secrets.TOKEN }}")
    assert tell.heard == ["{{ secrets.TOKEN }}"]


async def test_another_project_has_other_secrets(tell: Tell, shop: Shop) -> None:
    await shop.secrets.put(replace(shop.who, project_id="prj_b"), "TOKEN", VALUE)
    run = await shop.run({"steps": [{"key": "a", "uses": "test.tell", "with": {"token": "{{ secrets.TOKEN }}"}}]})
    assert run.error is not None


async def test_kept_listed_changed_and_forgotten(shop: Shop) -> None:
    assert (await shop.secrets.put(shop.who, "A", "value-one"))[1]
    assert not (await shop.secrets.put(shop.who, "A", "value-two"))[1]
    assert shop.secrets.opened(shop.who.project_id)["A"] == "value-two"
    await shop.secrets.put(shop.who, "B", "value-three")
    assert [secret.name for secret in await shop.secrets.list(shop.who)] == ["A", "B"]
    assert [secret.name for secret in await shop.secrets.list(shop.who, after="A")] == ["B"]
    await shop.secrets.delete(shop.who, "A")
    with pytest.raises(SecretNotFound):
        await shop.secrets.get(shop.who, "A")
    with pytest.raises(SecretNotFound):
        await shop.secrets.delete(shop.who, "A")


@pytest.mark.parametrize(
    ("name", "value"),
    [("1a", "long enough"), ("_a", "long enough"), ("a-b", "long enough"), ("A", "abc"), ("A", "a\0bcd")],
)
async def test_what_no_secret_can_be(shop: Shop, name: str, value: str) -> None:
    with pytest.raises(SecretInvalid):
        await shop.secrets.put(shop.who, name, value)


async def test_a_sealed_value_opens_in_its_own_row_only(shop: Shop, database: Database) -> None:
    await shop.secrets.put(shop.who, "A", "value-one")
    await shop.secrets.put(shop.who, "B", "value-two")
    with database.engine.begin() as connection:
        connection.execute(
            text("UPDATE secret SET sealed = (SELECT sealed FROM secret WHERE name = 'B') WHERE name = 'A'")
        )
    with pytest.raises(SecretError):
        shop.secrets.opened(shop.who.project_id)["A"]


async def test_a_question_to_people_is_kept_without_it(shop: Shop) -> None:
    await shop.secrets.put(shop.who, "TOKEN", VALUE)
    asked = {"message": "Is {{ secrets.TOKEN }} right?", "data": ["{{ secrets.TOKEN }}"]}
    run = await shop.start({"steps": [{"key": "ask", "uses": "approval", "with": asked}]})
    while not (questions := await shop.approvals.list(shop.who)):
        await asyncio.sleep(0.02)
    assert (questions[0].message, questions[0].data) == ("Is *** right?", ["***"])
    await shop.approvals.decide(shop.who, questions[0].id, "approved")
    await shop.wait(run)


async def test_it_is_no_input_of_another_run(tell: Tell, shop: Shop) -> None:
    await shop.secrets.put(shop.who, "TOKEN", VALUE)
    inner = {"name": "inner", "inputs": {"x": {}}, "steps": [{"key": "a", "uses": "test.tell", "with": {"token": "x"}}]}
    await shop.automation.apply(shop.who, orjson.dumps(inner))
    called = {"name": "inner", "inputs": {"x": "Bearer {{ secrets.TOKEN }}"}}
    run = await shop.run({"steps": [{"key": "a", "uses": "workflow", "with": called}]})
    assert run.error is not None
    assert (run.error.code, run.error.field) == ("workflow_inputs_invalid", "inputs")
    assert tell.heard == []
