"""An answer as a cache keeps it: in our own form, and as its provider wrote it."""

from __future__ import annotations

from nexus.llm.cache.dated import Dated, now
from nexus.llm.dialect import Dialect
from nexus.llm.errors import AnswerFailed
from nexus.llm.forms.assembly import chunks_of
from nexus.llm.types import CachePolicy, Call, Completion


class Kept(Dated, frozen=True, kw_only=True):
    """A whole answer and since when it is kept (Unix seconds); `body` is its provider's own, in `dialect`.

    `dropped` are the fields that its deployment was not asked for, as the caller is told of them.
    """

    completion: Completion
    ttl: float = 0.0
    dialect: str = ""
    form: str = ""
    body: bytes = b""
    dropped: bytes = b""

    @classmethod
    def of(
        cls, completion: Completion, *, dialect: str = "", form: str = "", body: bytes = b"", dropped: bytes = b""
    ) -> Kept:
        """Wrap an answer that has just come."""
        return cls(completion=completion, since=now(), dialect=dialect, form=form, body=body, dropped=dropped)

    def whole(self, call: Call, dialect: Dialect, *, again: bool = True) -> bytes:
        """Write it as a whole answer, for another call than the one that it came to if `again`.

        Raises `AnswerFailed` for one that failed: only its provider's own form has a word for that.
        """
        same = self.dialect == dialect.name and self.form == call.form
        if self.body and same and not (again and call.own_id):
            return self.body
        AnswerFailed.check(self.completion.failed)
        return dialect.completion(self.completion, call)

    def events(self, call: Call, dialect: Dialect) -> bytes:
        """Write it as the events of a stream. Raises as `whole` does."""
        AnswerFailed.check(self.completion.failed)
        writer = dialect.writer(call)
        return writer.write(chunks_of(self.completion)) + writer.end()

    def is_sound(self, policy: CachePolicy) -> bool:
        """Tell whether it came to a proper end and says something."""
        normal = ("stop", "tool_calls") if policy.tools else ("stop",)
        choices = self.completion.choices
        return bool(choices) and all(item.finish_reason in normal and item.message.parts for item in choices)
