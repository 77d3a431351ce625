"""The process that a conversion runs in: `python -m nexus.catalog.conversion_child NAME IN OUT OPTIONS`.

It prints the reason of a failure, in words that are safe to show, and exits with 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nexus.catalog.conversion import CONVERSIONS
from nexus.core.errors import NexusError


def main(argv: list[str]) -> int:
    """Convert and return the exit status."""
    name, inputs, outputs, options = argv
    try:
        CONVERSIONS.get(name).convert(Path(inputs), Path(outputs), json.loads(options))
    except NexusError as error:
        sys.stdout.write(error.message)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
