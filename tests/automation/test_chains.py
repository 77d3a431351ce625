"""Chains of starts have an end, whichever way they go: triggers, steps, calls of our API, webhooks, alerts."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from tests.automation.conftest import WHO
from tests.automation.test_signatures import standard
from tests.automation.test_triggers import WORKFLOW, House, house

from nexus.automation.chains import DEEPEST
from nexus.automation.errors import RunLoop
from nexus.core.cause import behind
from nexus.runs.tables import RunRow
from nexus.runs.types import Parent

__all__ = ["house"]


@pytest.mark.slow
async def test_a_chain_of_triggers_has_an_end(house: House) -> None:
    row, _ = await house.trigger("event", config={"types": ["run.finished"]}, inputs={"n": 1})
    await house.firing.tick()
    trigger: dict[str, Any] | None = {"type": "manual"}
    for _ in range(DEEPEST + 3):
        await house.events.publish("run.finished", "prj_a", {"trigger": trigger})
        await house.firing.tick()
        (newest,) = await house.triggers.deliveries(WHO, row.id, limit=1)
        if newest.run_id is None:
            break
        # The next run stands inside a run that stands inside the triggered one.
        child = {"type": "workflow", "run_id": newest.run_id}
        trigger = child
    assert house.count(RunRow) == DEEPEST
    assert house.outcomes()[-1] == ("skipped", "loop")


@pytest.mark.slow
async def test_a_chain_through_what_steps_do_has_an_end(house: House, caplog: pytest.LogCaptureFixture) -> None:
    row, _ = await house.trigger("event", config={"types": ["model.*"]}, inputs={"n": 1})
    await house.firing.tick()
    run_id: str | None = None
    for number in range(DEEPEST + 3):
        with behind(run_id):
            await house.events.publish("model.promoted", "prj_a", {"model": "churn"}, subject="churn")
        await house.firing.tick()
        (newest,) = await house.triggers.deliveries(WHO, row.id, limit=1)
        if newest.run_id is None:
            break
        run_id = newest.run_id
        if number == 1:  # its step calls our API, which starts another run, which promotes
            with behind(run_id):
                run_id = (await house.automation.start(WHO, "flow", {"n": 2}, trigger={"type": "api"})).id
    assert house.inputs() == [1, 1, 2, 1, 1]
    assert (newest.outcome, newest.reason, newest.event["data"]["caused_by"]) == ("skipped", "loop", run_id)
    row = await house.triggers.get(WHO, row.id)
    assert row.last_error is not None
    assert row.last_error["code"] == "trigger_loop"
    assert f"{row.id} was cut off" in caplog.text
    # What people do goes on.
    await house.events.publish("model.promoted", "prj_a", {"model": "churn"})
    await house.firing.tick()
    assert (await house.triggers.get(WHO, row.id)).last_error is None


async def test_a_chain_of_calls_of_our_api_has_an_end(house: House) -> None:
    await house.automation.apply(WHO, orjson.dumps(WORKFLOW))
    run = await house.automation.start(WHO, "flow", {"n": 0})
    assert run.trigger == {"type": "manual"}
    for number in range(1, DEEPEST + 1):
        caller = run.id
        with behind(caller):
            run = await house.automation.start(WHO, "flow", {"n": number}, trigger={"type": "api"})
        assert run.trigger == {"type": "api", "caused_by": caller, "depth": number}
    # What stands inside a run counts as that run does.
    with behind(run.id):
        inside = {"type": "workflow", "run_id": run.id}
        child = await house.automation.start(
            WHO, "flow", {"n": 0}, trigger=inside, parent=Parent(run.id, run.steps[0].id, 1)
        )
    assert child.trigger == inside
    for last in (run.id, child.id):
        with behind(last), pytest.raises(RunLoop):
            await house.automation.start(WHO, "flow", {"n": 9}, trigger={"type": "api"})
        with behind(last), pytest.raises(RunLoop):
            await house.automation.rerun(WHO, last, {})
    # What people do goes on.
    assert (await house.automation.rerun(WHO, run.id, {})).trigger == {"type": "rerun", "run_id": run.id}


@pytest.mark.slow
async def test_a_workflow_that_calls_its_own_webhook_has_an_end(house: House) -> None:
    row, secret = await house.trigger()
    key = "mine"
    for number in range(DEEPEST + 1):
        headers = {**standard(b"{}", house.at, secret, f"msg_{number}"), "idempotency-key": key}
        answer = await house.call(row, headers, b"{}")
        key = f"{answer.json()['run_id']}.call"
    assert (answer.status_code, answer.json()["outcome"], house.count(RunRow)) == (202, "skipped", DEEPEST)
    assert house.outcomes()[-1] == ("skipped", "loop")


@pytest.mark.slow
async def test_a_chain_through_alerts_has_an_end(house: House) -> None:
    row, _ = await house.trigger("event", config={"types": ["alert.firing"]}, inputs={"n": 1})
    await house.firing.tick()
    run_id = None
    for _ in range(DEEPEST + 2):
        await house.events.publish("alert.firing", "prj_a", {"alert_id": "alr_x", "run_id": run_id})
        await house.firing.tick()
        (newest,) = await house.triggers.deliveries(WHO, row.id, limit=1)
        run_id = newest.run_id or run_id
    assert house.count(RunRow) == DEEPEST
