"""Celery as the transport of `{step_id, epoch}`, and nothing more (research: automation section 2b).

No result back-end, ETA, retries, canvas or beat: those are ours, in the database. Messages are
acknowledged early; the lease on the step is what covers a dying worker. Imported by engines only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from celery import Celery
from kombu.entity import Exchange, Queue

from nexus.runs import memory_transport, redis_transport
from nexus.runs.engine_storage import Message
from nexus.runs.settings import RunsSettings

TASK: Final = "nexus.step"
# By being imported they are known to kombu.
_TRANSPORTS: Final = (memory_transport, redis_transport)


def make_app(settings: RunsSettings, execute: Callable[[str, int], None]) -> Celery:
    """Return the Celery app whose only task hands a step to `execute(step_id, epoch)`."""
    app = Celery("nexus", broker=settings.broker_url or f"{memory_transport.SCHEME}://localhost", set_as_current=False)
    exchange = Exchange("nexus", type="direct")  # type: ignore[no-untyped-call]
    app.conf.update(
        task_queues=[
            Queue(queue_name(name), exchange, routing_key=queue_name(name))  # type: ignore[no-untyped-call]
            for name in settings.queues
        ],
        task_default_queue=queue_name(settings.queues[0]),
        task_default_exchange="nexus",
        task_default_routing_key=queue_name(settings.queues[0]),
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=False,
        task_create_missing_queues=False,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_concurrency=settings.concurrency,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=2,
        broker_pool_limit=4,
        broker_transport_options=_transport_options(settings),
    )

    def step(step_id: str, epoch: int) -> None:
        execute(step_id, epoch)

    app.task(name=TASK, ignore_result=True, shared=False, lazy=False)(step)
    app.finalize()
    return app


def queue_name(name: str) -> str:
    """Return what one of our queues is called in the broker."""
    return f"nexus.{name}"


def _transport_options(settings: RunsSettings) -> dict[str, Any]:
    if settings.broker_url is None:
        return {}
    return {
        "visibility_timeout": 3600,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_keepalive": True,
        "socket_timeout": 5,
        "socket_connect_timeout": 2,
        "health_check_interval": 30,
        "retry_on_timeout": True,
    }


class Broker:
    """Puts messages into the broker and tells how many lie there."""

    def __init__(self, app: Celery, settings: RunsSettings) -> None:
        """Open nothing yet."""
        self._app = app
        self._queues = settings.queues
        self._connection = app.connection_for_write()
        self._producer: Any = None

    def publish(self, messages: Iterable[Message]) -> None:
        """Hand every message to the broker. Raises `OSError` or a broker's own error when it cannot."""
        producer = self._open()
        for message in messages:
            self._app.send_task(
                TASK,
                (message.step_id, message.epoch),
                queue=queue_name(message.queue),
                producer=producer,
                retry=False,
                ignore_result=True,
            )

    def depths(self) -> dict[str, int]:
        """Return how many messages lie in each queue. Raises like `publish`."""
        sizes = self._open().channel.sizes([queue_name(name) for name in self._queues])
        return dict(zip(self._queues, sizes, strict=True))

    def _open(self) -> Any:
        if self._producer is None:
            self._connection.ensure_connection(max_retries=1, timeout=2)
            self._producer = self._app.amqp.Producer(self._connection.default_channel, auto_declare=False)
        return self._producer

    def reset(self) -> None:
        """Drop a broken connection; the next call opens a new one."""
        producer, self._producer = self._producer, None
        if producer is not None:
            self._connection.close()
            self._connection = self._app.connection_for_write()

    def close(self) -> None:
        """Close the connection."""
        self._producer = None
        self._connection.close()
