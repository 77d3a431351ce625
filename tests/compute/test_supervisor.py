"""Real programs under the supervisor: order, readiness, restarts, stopping, and the death of the parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests.clock import PATIENCE, soon
from tests.compute.workload import gone

from nexus.compute.errors import ChildNotReady
from nexus.compute.supervisor import Child, Supervisor

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def python(name: str, program: str, **settings: object) -> Child:
    return Child(name=name, argv=[sys.executable, "-c", textwrap.dedent(program)], **settings)  # type: ignore[arg-type]


async def test_starts_in_order_each_ready_before_the_next(tmp_path: Path) -> None:
    async def first_is_up() -> bool:
        return (tmp_path / "first").exists()

    slow = f"import time; time.sleep(0.5); open({str(tmp_path / 'first')!r}, 'w'); time.sleep(60)"
    second = f"import os, time; assert os.path.exists({str(tmp_path / 'first')!r}); time.sleep(60)"
    supervisor = Supervisor([python("first", slow, ready=first_is_up), python("second", second)])
    await supervisor.start()
    assert supervisor.states() == {"first": "ready", "second": "ready"}
    await asyncio.sleep(0.3)
    pids = [running.pid for running in supervisor.running.values()]
    assert all(pids)
    await supervisor.stop()
    assert supervisor.states() == {"first": "stopped", "second": "stopped"}
    assert all(gone(pid) for pid in pids if pid)


async def test_a_killed_child_comes_back() -> None:
    supervisor = Supervisor([python("part", SLEEP, backoff=0.05)])
    await supervisor.start()
    running = supervisor.running["part"]
    for expected in (1, 2):
        before = running.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await soon(lambda: running.state == "ready" and running.pid not in (None, before))  # noqa: B023
        assert running.restarted == expected
    await supervisor.stop()


async def test_the_back_off_doubles_and_a_hopeless_child_is_given_up() -> None:
    supervisor = Supervisor([python("hopeless", "raise SystemExit(3)", backoff=0.1, restarts=3)])
    began = time.monotonic()
    await supervisor.start()
    await soon(lambda: supervisor.states()["hopeless"] == "failed")
    assert time.monotonic() - began >= 0.1 + 0.2 + 0.4
    assert supervisor.running["hopeless"].returncode == 3
    await supervisor.stop()


@pytest.mark.parametrize(
    "argv", [["/no/such/program"], [sys.executable, "-c", "raise SystemExit(1)"], [sys.executable, "-c", SLEEP]]
)
async def test_a_part_that_does_not_start_stops_the_others(argv: list[str]) -> None:
    async def never() -> bool:
        return False

    supervisor = Supervisor([python("good", SLEEP), Child(name="bad", argv=argv, ready=never, ready_timeout=0.5)])
    with pytest.raises(ChildNotReady):
        await supervisor.start()
    assert supervisor.running["good"].pid is None


async def test_a_stubborn_child_is_killed_after_its_grace() -> None:
    lines: list[tuple[str, str]] = []
    child = python("stubborn", STUBBORN, grace=0.3, on_line=lambda name, line: lines.append((name, line)))
    supervisor = Supervisor([child])
    await supervisor.start()
    await soon(lambda: lines == [("stubborn", "up")])
    pid = supervisor.running["stubborn"].pid
    began = time.monotonic()
    await supervisor.stop()
    assert 0.3 <= time.monotonic() - began < 15, "and not after the usual twenty seconds"
    assert pid is not None
    assert gone(pid)


async def test_long_and_broken_lines_are_passed_on() -> None:
    lines: list[str] = []
    program = "import sys; sys.stdout.buffer.write(b'x' * 300_000 + b'\\n\\xff\\nend')"
    supervisor = Supervisor([python("part", program, restart=False, on_line=lambda _, line: lines.append(line))])
    await supervisor.start()
    await soon(lambda: len(lines) == 3)
    assert lines == ["x" * 300_000, "�", "end"]
    await supervisor.stop()


PARENT = """
    import asyncio, sys
    from nexus.compute.supervisor import Child, Supervisor

    async def main():
        up = asyncio.Event()
        argv = [sys.executable, "-c", {child!r}]
        supervisor = Supervisor([Child(name="part", argv=argv, grace=60, on_line=lambda name, line: up.set())])
        await supervisor.start()
        supervisor.handle_signals()
        await up.wait()
        print(supervisor.running["part"].pid, flush=True)
        while not supervisor.asked_to_stop:
            await asyncio.sleep(0.01)
        print("stopping", flush=True)
        await supervisor.wait()

    asyncio.run(main())
"""


def start_parent(child: str) -> tuple[subprocess.Popen[str], int]:
    program = textwrap.dedent(PARENT).format(child=child)
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    for line in parent.stdout:
        if line.strip().isdigit():
            return parent, int(line)
    raise AssertionError("the parent said nothing")


def test_kill_9_of_the_parent_takes_the_child_with_it() -> None:
    parent, child = start_parent(SLEEP)
    parent.kill()
    parent.communicate()
    assert gone(child)


def test_sigterm_stops_all_and_ends_well() -> None:
    parent, child = start_parent(SLEEP)
    parent.terminate()
    parent.communicate(timeout=PATIENCE)
    assert parent.returncode == 0
    assert gone(child)


def test_a_second_signal_is_fast() -> None:
    parent, child = start_parent(STUBBORN)
    parent.terminate()
    assert parent.stdout is not None
    assert parent.stdout.readline() == "stopping\n"
    assert parent.poll() is None
    parent.terminate()
    parent.communicate(timeout=PATIENCE)
    assert gone(child)


async def test_a_start_that_is_stopped_meanwhile_ends() -> None:
    async def never() -> bool:
        return False

    supervisor = Supervisor([Child(name="slow", argv=["/bin/sleep", "60"], ready=never, ready_timeout=60, grace=2)])
    starting = asyncio.create_task(supervisor.start())
    await asyncio.sleep(0.3)
    await supervisor.stop()
    with pytest.raises(ChildNotReady):
        await asyncio.wait_for(starting, PATIENCE)
