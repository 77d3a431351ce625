"""Collecting the problems of a definition with their places."""

from __future__ import annotations

from nexus.automation.document import Path, Place, placed
from nexus.automation.errors import Problem


class Reporter:
    """Collects problems found below one place of the definition."""

    def __init__(self, problems: list[Problem], places: dict[Path, Place], at: Path = ()) -> None:
        """Add to `problems` what is found below the path `at`."""
        self._problems, self._places, self._at = problems, places, at

    def __call__(self, path: Path, message: str) -> None:
        """Report a problem at `path` below this place."""
        self._problems.append(placed((*self._at, *path), message, self._places))

    def below(self, path: Path) -> Reporter:
        """Return a reporter for a place further down."""
        return Reporter(self._problems, self._places, (*self._at, *path))
