"""What can go wrong with a picture or a vision model.

InvalidInput
|-- ImageUnreadable        422 image_unreadable
|-- WrongTask              422 model_wrong_task
TooLarge
`-- ImageTooLarge          413 image_too_large
NotFound
`-- VisionTaskNotFound     404 vision_task_not_found
RateLimited
`-- VisionBusy             429 vision_busy
Unavailable
|-- ModelBroken            503 model_broken
`-- DeviceUnavailable      503 device_unavailable
"""

from __future__ import annotations

from nexus.core.errors import InvalidInput, NotFound, RateLimited, TooLarge, Unavailable


class ImageUnreadable(InvalidInput):
    """The image is broken, cut short, or not in a format that is read here (JPEG, PNG, WebP, GIF, BMP, TIFF)."""

    code = "image_unreadable"


class ImageTooLarge(TooLarge):
    """The image has more bytes, more pixels or a longer side than allowed."""

    code = "image_too_large"


class WrongTask(InvalidInput):
    """This model is made for another task."""

    code = "model_wrong_task"


class ModelNotRunnable(InvalidInput):
    """The description of this model does not say how to run it."""

    code = "model_not_runnable"


class VisionTaskNotFound(NotFound):
    """There is no vision task of this name."""

    code = "vision_task_not_found"


class VisionBusy(RateLimited):
    """All vision workers are busy and the queue is full; try again in a moment."""

    code = "vision_busy"


class ModelBroken(Unavailable):
    """The files of this model cannot be used, or do not fit its description."""

    code = "model_broken"
    retryable = False


class DeviceUnavailable(Unavailable):
    """The device asked for in the settings is not there."""

    code = "device_unavailable"
    retryable = False
