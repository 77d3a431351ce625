"""OpenCV, imported on first use and kept from starting threads of its own."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def opencv() -> Any:
    """Return the module `cv2`: a heavy import, and its own thread pool would fight over the same cores as ours."""
    import cv2

    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
