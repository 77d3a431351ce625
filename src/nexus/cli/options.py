"""Options that many commands share, and the settings that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nexus.cli.output import fail
from nexus.core.errors import NexusError
from nexus.settings import Settings, load_settings

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where NEXUS keeps everything.", show_default=False)]
Url = Annotated[str | None, typer.Option("--url", envvar="NEXUS_URL", help="Another instance.", show_default=False)]
Key = Annotated[str | None, typer.Option("--key", envvar="NEXUS_API_KEY", help="Its API key.", show_default=False)]


def settings_of(data_dir: Path | None = None, **more: object) -> Settings:
    """Return the settings, or end the command with what is wrong with them."""
    try:
        return load_settings(data_dir=data_dir, **more)
    except NexusError as error:
        fail(error.message, 78)
