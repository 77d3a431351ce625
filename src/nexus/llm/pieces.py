"""An embedding request in the pieces that a provider takes at once, and their answers as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from nexus.llm.types import Embedding, EmbeddingRequest, Usage

_AT_ONCE = 8


def pieces_of(request: EmbeddingRequest, most: int | None) -> list[EmbeddingRequest]:
    """Return the request, or several of at most `most` inputs in its order."""
    if most is None or len(request.input) <= most:
        return [request]
    starts = range(0, len(request.input), most)
    cuts = [request.input[start : start + most] for start in starts]
    return [msgspec.structs.replace(request, input=cut, dialect="", body=b"") for cut in cuts]


async def gathered(
    pieces: Sequence[EmbeddingRequest], ask: Callable[[EmbeddingRequest], Awaitable[Embedding]]
) -> Embedding:
    """Ask for each piece, a few at a time, and join the answers. Raises the first failure."""
    answers: list[Embedding] = []
    for start in range(0, len(pieces), _AT_ONCE):
        told = await asyncio.gather(*map(ask, pieces[start : start + _AT_ONCE]), return_exceptions=True)
        for answer in told:
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
    return answers[0] if len(answers) == 1 else joined(answers)


def joined(answers: Sequence[Embedding]) -> Embedding:
    """Return the vectors of all answers in order, and their tokens together where each has a figure."""
    used = [answer.usage.input_tokens for answer in answers if answer.usage is not None]
    return Embedding(
        model=answers[0].model,
        vectors=tuple(vector for answer in answers for vector in answer.vectors),
        dimensions=answers[0].dimensions,
        usage=Usage(input_tokens=sum(used)) if len(used) == len(answers) else None,
    )
