"""Set NEXUS up and start it: what `./nexus` runs. Only the standard library is used here.

1. a virtual environment in `.venv`, with the locked, hash-checked packages of `requirements.lock`
   (or `requirements-test.lock` for `./nexus test`, which is a superset);
2. NEXUS itself, editable, whose build hook makes the dashboard;
3. the command, run by the environment's own Python.

Steps 1 and 2 are skipped when the stamp says that nothing has changed, so that a second start is
quick and needs no network. Everything is written below the repository. Two set-ups at once wait
for each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".nexus-stamp"
CACHE = ROOT / ".cache"
LOCKS = {"run": ROOT / "requirements.lock", "test": ROOT / "requirements-test.lock"}
SYSTEM_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
BOOTSTRAP_LOCK = ROOT / "requirements-bootstrap.lock"


class SetupFailed(Exception):
    """Said in one line to the person who typed the command."""


def main(arguments: list[str]) -> None:
    """Set up what `arguments` need, then become that command."""
    testing = arguments[:1] == ["test"]
    try:
        prepare("test" if testing else "run")
    except SetupFailed as error:
        sys.exit(f"nexus: {error}")
    environment = tool_environment()
    if testing:
        command = [str(PYTHON), "-m", "pytest", *pytest_arguments(arguments[1:])]
        os.chdir(ROOT)
    else:
        command = [str(PYTHON), "-m", "nexus", *arguments]
    os.execve(PYTHON, command, environment)


def pytest_arguments(arguments: list[str]) -> list[str]:
    """Turn `--quick` and `--long` into pytest's own selections; the rest is pytest's.

    Tests run in several processes side by side, unless told otherwise (`-n 0`): many of them wait for a limit of
    time, a disk or a process of theirs, so that there is one more than there are cores, and no more than four.
    """
    selections = {"--quick": ["-m", "not slow and not long and not browser"], "--long": ["-m", "long"]}
    chosen = next((selections[word] for word in arguments if word in selections), ["-m", "not long"])
    rest = [word for word in arguments if word not in selections]
    return [
        *([] if "-m" in rest else chosen),
        *([] if "-n" in rest else ["-n", str(min(4, cores() + 1)), "--dist", "loadfile", "--no-loadscope-reorder"]),
        *rest,
    ]


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(profile: str) -> None:
    """Bring `.venv` up to date for `profile` ("run" or "test") unless it is already."""
    if is_ready(profile):
        return
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_ready(profile):
            return
        started = time.monotonic()
        say("setting up (once; later starts are quick and work offline)")
        make_environment()
        install(profile)
        STAMP.write_text("\n".join(f"{name} {wanted(name)}" for name in contained(profile)) + "\n")
        say(f"set up in {time.monotonic() - started:.0f} s")


def contained(profile: str) -> list[str]:
    """Return the profiles that are satisfied once `profile` is installed."""
    return ["run", "test"] if profile == "test" else ["run"]


def wanted(profile: str) -> str:
    """Return the digest of everything that the set-up of `profile` depends on."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT} {os.environ.get('NEXUS_SKIP_UI', '')}".encode())
    for path in [ROOT / "pyproject.toml", ROOT / "hatch_build.py", LOCKS[profile], *dashboard_sources()]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def dashboard_sources() -> list[Path]:
    """Return the files that the built dashboard is made of."""
    folder = ROOT / "dashboard"
    files = [path for path in folder.glob("*") if path.is_file()]
    files += [path for path in (folder / "src").rglob("*") if path.is_file()]
    files += [path for path in (folder / "public").rglob("*") if path.is_file()]
    return sorted(files)


def is_ready(profile: str) -> bool:
    """Tell whether the set-up of `profile` is there and up to date."""
    try:
        return PYTHON.exists() and f"{profile} {wanted(profile)}" in STAMP.read_text().splitlines()
    except FileNotFoundError:
        return False


def make_environment() -> None:
    """Make `.venv` with pip in it, from this Python."""
    if PYTHON.exists() and subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    made = subprocess.run([base_python(), "-m", "venv", VENV], capture_output=True, text=True)
    if made.returncode == 0:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    # Debian's Python comes without ensurepip; a pip of the machine can fill an empty environment.
    bare = subprocess.run([base_python(), "-m", "venv", "--without-pip", VENV], capture_output=True, text=True)
    filled = bare.returncode == 0 and (
        subprocess.run(
            [base_python(), "-m", "pip", f"--python={PYTHON}", "install", "--quiet", "pip"], env=tool_environment()
        ).returncode
        == 0
    )
    if not filled:
        shutil.rmtree(VENV, ignore_errors=True)
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupFailed(f"this Python cannot make virtual environments; try: apt-get install python{version}-venv")


def base_python() -> str:
    """Return the Python outside any environment that made the one running this."""
    return getattr(sys, "_base_executable", None) or sys.executable


def install(profile: str) -> None:
    """Install the locked packages and NEXUS itself into `.venv`."""
    environment = tool_environment()
    uv = VENV / "bin" / "uv"
    say("installing the package installer")
    run([PYTHON, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", BOOTSTRAP_LOCK], environment)
    say("installing packages")
    environment = {**environment, **as_uv_reads_it(environment)}
    common = ["--python", PYTHON, "--quiet"]
    synced = subprocess.run(
        [str(word) for word in (uv, "pip", "sync", *common, "--require-hashes", LOCKS[profile])],
        env=environment,
        cwd=ROOT,
    )
    if synced.returncode != 0:
        say("uv could not reach the packages as this machine is set up; trying pip, which is slower")
        run([PYTHON, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", LOCKS[profile]], environment)
    say("building the dashboard")
    run([uv, "pip", "install", *common, "--no-deps", "--no-build-isolation", "--editable", ROOT], environment)


def tool_environment() -> dict[str, str]:
    """Return this environment, with every tool's cache below the repository."""
    environment = dict(os.environ)
    search = [str(VENV / "bin"), environment.get("PATH", ""), "/usr/bin:/bin"]
    environment.update(
        PATH=os.pathsep.join(part for part in search if part),
        VIRTUAL_ENV=str(VENV),
        UV_CACHE_DIR=str(CACHE / "uv"),
        UV_PYTHON_DOWNLOADS="never",
        PIP_CACHE_DIR=str(CACHE / "pip"),
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        npm_config_cache=str(CACHE / "npm"),
        npm_config_update_notifier="false",
    )
    certificates = next((path for path in SYSTEM_CERTIFICATES if Path(path).is_file()), None)
    if certificates and "SSL_CERT_FILE" not in environment:
        # Each tool brings certificates of its own; a machine behind a proxy trusts more than those.
        for name in ("PIP_CERT", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"):
            environment.setdefault(name, certificates)
    if environment.pop("PYTHONDONTWRITEBYTECODE", ""):
        # The wish is a clean tree. With no bytecode at all, every process would compile thousands of files anew.
        environment.setdefault("PYTHONPYCACHEPREFIX", str(CACHE / "bytecode"))
    return environment


def as_uv_reads_it(environment: dict[str, str]) -> dict[str, str]:
    """Return pip's settings (of its files and of PIP_ variables) under the names that uv reads."""
    listed = subprocess.run(
        [PYTHON, "-m", "pip", "config", "list"], env=environment, capture_output=True, text=True
    ).stdout
    settings: dict[str, str] = {}
    for line in listed.splitlines():
        name, separator, value = line.partition("=")
        key = name.rpartition(".")[2]
        # Variables are listed as `:env:.name` and come before those of files.
        if separator and (key not in settings or name.startswith(":env:")):
            settings[key] = value.strip().strip("'\"")
    found = {}
    if links := [link for link in settings.get("find-links", "").split() if "://" in link or Path(link).is_dir()]:
        found["UV_FIND_LINKS"] = ",".join(links)
    if settings.get("index-url"):
        found["UV_DEFAULT_INDEX"] = settings["index-url"]
    return {name: value for name, value in found.items() if name not in environment}


def run(command: list[object], environment: dict[str, str]) -> None:
    """Run `command` in the repository; raise `SetupFailed` when it fails."""
    words = [str(word) for word in command]
    if subprocess.run(words, env=environment, cwd=ROOT).returncode != 0:
        raise SetupFailed(f"this step failed, see above: {' '.join(words[:4])} ... Run the command again to retry.")


def say(line: str) -> None:
    """Tell the person what happens."""
    print(f"nexus: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
