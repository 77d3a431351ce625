"""What can go wrong with files."""

from __future__ import annotations

from nexus.core.errors import InvalidInput, NotFound, TooLarge


class FileNotFound(NotFound):
    """There is no such file in this project."""

    code = "file_not_found"


class FileTooLarge(TooLarge):
    """The file is larger than allowed."""

    code = "file_too_large"


class EmptyFile(InvalidInput):
    """The file is empty."""

    code = "empty_file"
