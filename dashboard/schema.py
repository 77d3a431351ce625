"""Write `src/api/schema.d.ts`: the types of the routes that the dashboard calls, from the app's OpenAPI document.

    .venv/bin/python dashboard/schema.py [openapi.json]

Without a file, the document is that of the installed NEXUS. Only called routes are kept, so that the types change
when one of those does and at no other time.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TARGET = HERE / "src" / "api" / "schema.d.ts"
CALL = re.compile(r"""\bapi\.(GET|PUT|POST|DELETE|PATCH)\(\s*['"]([^'"]+)['"]""")


def called(sources: Path) -> set[tuple[str, str]]:
    """Return method and path of every call of the typed client below `sources`."""
    found: set[tuple[str, str]] = set()
    for file in [*sources.rglob("*.ts"), *sources.rglob("*.tsx")]:
        found |= {(method.lower(), path) for method, path in CALL.findall(file.read_text())}
    return found


def trimmed(document: dict[str, Any], calls: set[tuple[str, str]]) -> dict[str, Any]:
    """Return the document with the called routes and their shapes only. Raises `KeyError` for a missing one."""
    paths: dict[str, Any] = {}
    for method, path in sorted(calls):
        paths.setdefault(path, {})[method] = document["paths"][path][method]
    schemas = document.get("components", {}).get("schemas", {})
    needed: set[str] = set()
    waiting = [json.dumps(paths)]
    while waiting:
        for name in set(re.findall(r"#/components/schemas/([^\"]+)", waiting.pop())) - needed:
            needed.add(name)
            waiting.append(json.dumps(schemas[name]))
    kept = {name: schemas[name] for name in sorted(needed)}
    return {"openapi": document["openapi"], "info": document["info"], "paths": paths, "components": {"schemas": kept}}


def write(document: dict[str, Any], target: Path) -> None:
    """Turn an OpenAPI document into TypeScript."""
    sys.path.insert(0, str(HERE.parent))
    import hatch_build

    node = hatch_build.find_node(HERE.parent)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "openapi.json"
        source.write_text(json.dumps(document))
        node.run("node_modules/openapi-typescript/bin/cli.js", str(source), "-o", str(target), folder=HERE)


def main() -> None:
    """Write the types."""
    if len(sys.argv) > 1:
        document = json.loads(Path(sys.argv[1]).read_text())
    else:
        from nexus.app import openapi

        document = openapi()
    write(trimmed(document, called(HERE / "src")), TARGET)


if __name__ == "__main__":
    main()
