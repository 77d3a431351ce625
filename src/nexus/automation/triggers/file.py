"""When a file arrives in a watched folder: the folders below the roots of the settings (`watching.py` looks)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from pydantic import Field

from nexus.automation.errors import TriggerInvalid
from nexus.automation.settings import AutomationSettings
from nexus.automation.trigger import TriggerConfig

ARRIVED: Final = "file.arrived"


class FileConfig(TriggerConfig):
    """Which files of which folder."""

    folder: str = Field(
        max_length=255,
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._ -]*(/[A-Za-z0-9_-][A-Za-z0-9._ -]*)*$",
        description="A watched root of the settings, and a folder below it: `inbox/invoices`",
    )
    pattern: str = Field("*", min_length=1, max_length=255, description="Names with `*` and `?`")
    move_to_done: bool = Field(False, description="Move what was taken in to the folder `done` beside it")


class FileTrigger:
    """The kind `file`."""

    kind = "file"
    summary = "When a file arrives in a watched folder."
    Config: type[TriggerConfig] = FileConfig

    def check(self, config: FileConfig, settings: AutomationSettings) -> None:
        """Raise `TriggerInvalid` for a folder that is not below a watched root."""
        root = config.folder.partition("/")[0]
        if root not in settings.watch:
            raise TriggerInvalid(f"No folder {root} is watched here (NEXUS_AUTOMATION__WATCH).", field="config.folder")

    def types(self, config: FileConfig) -> Sequence[str]:
        """Return what the watcher tells."""
        return (ARRIVED,)

    def admits(self, config: FileConfig, event: Mapping[str, Any]) -> bool:
        """Tell whether the file lay in this folder and has a fitting name."""
        data = event["data"]
        return data.get("folder") == config.folder and fnmatchcase(str(data.get("name")), config.pattern)

    def sample(self, config: FileConfig) -> dict[str, Any]:
        """Return the arrival of a small file."""
        name = config.pattern.replace("*", "example").replace("?", "x")
        data = {
            "file_id": "file_example",
            "folder": config.folder,
            "name": name,
            "size": 12,
            "content_type": "text/csv",
        }
        return {"type": ARRIVED, "subject": f"{config.folder}/{name}", "data": data}


plug = FileTrigger()
