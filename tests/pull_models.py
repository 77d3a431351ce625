"""Pull the models that tests use into the data dir given as the first argument; exit with 1 if one cannot be had."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from nexus.catalog.errors import ModelNotPulled
from nexus.catalog.service import CatalogService
from nexus.composition import build
from nexus.settings import load_settings
from nexus.setup import migrate, pull_starters


async def main(data_dir: Path) -> int:
    """Pull one starter for each task, and CenterNet, which is only the second choice where YOLOX can be had."""
    parts = build(load_settings(data_dir=data_dir), children=1)
    migrate(parts.database)
    catalog = parts.services.get(CatalogService)
    missing = await pull_starters(catalog, lambda line: print(line, file=sys.stderr))
    try:
        await catalog.find("centernet")
    except ModelNotPulled:
        await catalog.pull("centernet")
    await parts.stop()
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]))))
