"""Where the milliseconds of a call went."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

import msgspec

from nexus.vision.types import Timing

Stage = Literal["decode", "preprocess", "inference", "postprocess"]


@dataclass(slots=True)
class Stopwatch:
    """Adds up the milliseconds of each stage."""

    timing: Timing = field(default_factory=Timing)

    def rounded(self) -> Timing:
        """Return the times to a hundredth of a millisecond."""
        return Timing(*(round(value, 2) for value in msgspec.structs.astuple(self.timing)))

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Count the time inside the block towards this stage."""
        start = perf_counter()
        try:
            yield
        finally:
            setattr(self.timing, name, getattr(self.timing, name) + (perf_counter() - start) * 1000)
