"""One load for many callers, counted uses, room by least recent use, draining."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref

import pytest
from tests.clock import soon

from nexus.catalog.errors import MemoryFull, ModelDamaged, ModelLoadFailed
from nexus.catalog.pool import ModelPool
from nexus.catalog.types import State


class Model:
    """Something that can be closed and that weak references can watch."""

    def __init__(self, name: str = "m") -> None:
        self.name = name
        self.closed = False

    def close(self) -> None:
        self.closed = True


class HeldClock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self):
        raise NotImplementedError

    def monotonic(self) -> float:
        return self.seconds


async def test_many_callers_share_one_load() -> None:
    pool, loads = ModelPool(budget=100), []

    def load() -> Model:
        loads.append(threading.current_thread().name)
        time.sleep(0.05)
        return Model()

    async def one() -> Model:
        async with pool.use("m@1", load, size=10) as model:
            return model

    models = await asyncio.gather(*(one() for _ in range(40)))
    assert len(loads) == 1
    assert loads[0].startswith("model-load")
    assert len({id(model) for model in models}) == 1
    pool.close()


async def test_states_tell_loading_loaded_and_users() -> None:
    pool, go = ModelPool(budget=100), threading.Event()

    def load() -> Model:
        go.wait(60)
        return Model()

    async def hold(done: asyncio.Event) -> None:
        async with pool.use("m@1", load, size=10):
            await done.wait()

    done = asyncio.Event()
    task = asyncio.create_task(hold(done))
    await soon(pool.states)
    assert [entry.state for entry in pool.states()] == [State.LOADING]
    go.set()
    await soon(lambda: pool.states()[0].state is State.LOADED and pool.states()[0].users)
    (entry,) = pool.states()
    assert (entry.state, entry.users, entry.size) == (State.LOADED, 1, 10)
    done.set()
    await task
    assert pool.states()[0].users == 0
    pool.close()


async def test_the_least_recently_used_makes_room() -> None:
    clock = HeldClock()
    pool = ModelPool(budget=25, minimum_idle=0, clock=clock)
    models = {name: Model(name) for name in "abc"}
    for name in ("a", "b", "a", "c"):
        clock.seconds += 1
        async with pool.use(name, lambda name=name: models[name], size=10) as model:
            assert model is models[name]
    assert sorted(entry.key for entry in pool.states()) == ["a", "c"]
    assert models["b"].closed
    assert not models["a"].closed
    assert pool.held() == 20
    pool.close()


@pytest.mark.parametrize(
    ("protection", "refused"),
    [("in use", True), ("pinned", True), ("just used", True), ("nothing", False)],
)
async def test_room_is_never_made_at_the_cost_of_what_is_protected(protection: str, refused: bool) -> None:
    clock = HeldClock()
    pool = ModelPool(budget=15, minimum_idle=5, clock=clock)
    async with pool.use("a", Model, size=10):
        if protection == "in use":
            clock.seconds += 60
            with pytest.raises(MemoryFull) as caught:
                async with pool.use("b", Model, size=10):
                    pass
            assert caught.value.retry_after
            assert caught.value.status == 503
    pool.pin("a", pinned=protection == "pinned")
    clock.seconds += 1 if protection == "just used" else 60
    if refused and protection != "in use":
        with pytest.raises(MemoryFull):
            async with pool.use("b", Model, size=10):
                pass
        assert [entry.key for entry in pool.states()] == ["a"]
    else:
        async with pool.use("b", Model, size=10):
            assert [entry.key for entry in pool.states() if entry.state is not State.DRAINING] == ["b"]
    pool.close()


async def test_a_model_larger_than_everything_is_refused_at_once() -> None:
    pool = ModelPool(budget=15)
    with pytest.raises(MemoryFull):
        async with pool.use("a", Model, size=16):
            pass
    assert pool.states() == []
    pool.close()


async def test_unloading_drains_while_newcomers_load_afresh() -> None:
    pool, made = ModelPool(budget=100), []

    def load() -> Model:
        made.append(Model())
        return made[-1]

    async with pool.use("m@1", load, size=10) as old:
        assert pool.unload("m@1") == 1
        assert [entry.state for entry in pool.states()] == [State.DRAINING]
        assert not old.closed
        async with pool.use("m@1", load, size=10) as new:
            assert new is not old
        assert not old.closed
    assert old.closed
    assert [entry.state for entry in pool.states()] == [State.LOADED]
    pool.close()
    assert new.closed


async def test_unloading_takes_every_way_in_which_a_version_is_loaded() -> None:
    pool = ModelPool(budget=100)
    for key in ("m@1/cpu", "m@1/cuda", "m@10"):
        async with pool.use(key, Model, size=1):
            pass
    assert pool.unload("m@1") == 2
    assert [entry.key for entry in pool.states()] == ["m@10"]
    pool.close()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RuntimeError("a secret path"), ModelLoadFailed),
        (ModelDamaged(), ModelDamaged),
        (MemoryError(), ModelLoadFailed),
    ],
)
async def test_a_failed_load_is_told_kept_and_tried_again(raised: Exception, expected: type[Exception]) -> None:
    clock, attempts = HeldClock(), []
    pool = ModelPool(budget=100, retry_failed_after=1.0, clock=clock)

    def load() -> Model:
        attempts.append(1)
        if len(attempts) == 1:
            raise raised
        return Model()

    for _ in range(3):
        with pytest.raises(expected) as caught:
            async with pool.use("m", load, size=10):
                pass
        assert "secret" not in str(caught.value)
    assert len(attempts) == 1
    (entry,) = pool.states()
    assert (entry.state, entry.size, bool(entry.reason)) == (State.FAILED, 0, True)
    clock.seconds += 2
    async with pool.use("m", load, size=10):
        pass
    assert len(attempts) == 2
    pool.close()


async def test_a_caller_that_gives_up_neither_stops_the_load_nor_stays_counted() -> None:
    pool, go = ModelPool(budget=100), threading.Event()

    def load() -> Model:
        go.wait(60)
        return Model()

    async def use() -> None:
        async with pool.use("m", load, size=10):
            pass

    task = asyncio.create_task(use())
    await soon(pool.states)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.states()[0].users == 0
    go.set()
    async with pool.use("m", lambda: pytest.fail("the first load is enough"), size=10) as model:
        assert isinstance(model, Model)
    pool.close()


def test_threads_and_event_loops_share_one_model() -> None:
    pool, loads = ModelPool(budget=100), []

    def load() -> Model:
        loads.append(1)
        time.sleep(0.02)
        return Model()

    async def from_loop() -> None:
        async with pool.use("m", load, size=10):
            await asyncio.sleep(0.01)

    def from_thread() -> None:
        with pool.use_now("m", load, size=10):
            time.sleep(0.01)

    threads = [threading.Thread(target=lambda: asyncio.run(from_loop())) for _ in range(4)]
    threads += [threading.Thread(target=from_thread) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(loads) == 1
    assert pool.states()[0].users == 0
    pool.close()


async def test_what_is_unloaded_is_freed() -> None:
    pool, watched = ModelPool(budget=100), []

    def load() -> Model:
        model = Model()
        watched.append(weakref.ref(model))
        return model

    for _ in range(20):
        async with pool.use("m", load, size=10):
            pass
        pool.unload("m")
    await asyncio.sleep(0)  # the step of this task that was woken by the last load still holds it
    gc.collect()
    assert len(watched) == 20
    assert not any(reference() for reference in watched)
    assert pool.held() == 0
    pool.close()


async def test_a_storm_of_uses_and_unloads_never_yields_a_closed_model() -> None:
    pool, wrong = ModelPool(budget=35, minimum_idle=0), 0

    async def one(number: int) -> None:
        nonlocal wrong
        for round_ in range(20):
            key = f"m{(number + round_) % 5}"
            try:
                async with pool.use(key, Model, size=10) as model:
                    await asyncio.sleep(0.001)
                    wrong += model.closed
            except MemoryFull:
                await asyncio.sleep(0.002)
            if round_ % 7 == number % 7:
                pool.unload(key)

    await asyncio.gather(*(one(number) for number in range(12)))
    assert wrong == 0
    assert pool.held() <= 35
    pool.close()
