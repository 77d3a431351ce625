"""One ledger row for each call, however it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nexus.access.types import Principal
from nexus.core.errors import NexusError
from nexus.ledger.service import Ledger
from nexus.ledger.types import Invocation


@contextmanager
def recorded(
    ledger: Ledger,
    who: Principal,
    kind: str,
    model: str,
    *,
    request_id: str | None = None,
    run_id: str | None = None,
    step_key: str | None = None,
) -> Iterator[Invocation]:
    """Record the call made within, exactly once; its caller may fill in more members of what is yielded."""
    invocation = Invocation(
        project_id=who.project_id,
        principal_id=who.id,
        key_id=who.key_id,
        kind=kind,
        model=model,
        request_id=request_id,
        run_id=run_id,
        step_key=step_key,
    )
    began = time.perf_counter()
    try:
        yield invocation
    except NexusError as error:
        invocation.status, invocation.error_code = "error", error.code
        raise
    except asyncio.CancelledError:
        # A step is cancelled by its run; a request only by the client that hung up.
        invocation.status = "cancelled" if run_id else "client_disconnect"
        raise
    except BaseException:
        invocation.status, invocation.error_code = "error", NexusError.code
        raise
    finally:
        invocation.latency_ms = round((time.perf_counter() - began) * 1000, 3)
        ledger.record(invocation)
