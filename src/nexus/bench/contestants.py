"""What `nexus bench gateway` measures side by side: NEXUS, nginx, LiteLLM's proxy, and the upstream itself."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import psutil
import yaml

from nexus.bench.environments import own_environment
from nexus.cli.instance import ALONE, private
from nexus.compute.settings import inherited_environment

LITELLM: Final = "1.106.2"
MODEL: Final = "gpt-4o-mini"
CACHED: Final = "gpt-4o-mini-cached"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One server under test: its port, a key that it takes, and the processes whose CPU time counts."""

    name: str
    port: int
    key: str
    processes: tuple[psutil.Process, ...]

    def cpu_seconds(self) -> float:
        """Return the CPU time that its processes have used so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)

    def memory_mb(self) -> float:
        """Return its resident memory."""
        return sum(process.memory_info().rss for process in self.processes) / 1e6


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def upstream() -> Iterator[Contestant]:
    """Start the cheap provider."""
    port = free_port()
    command = [sys.executable, "-m", "nexus.bench.upstream", str(port)]
    process = subprocess.Popen(command, env=inherited_environment(), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield Contestant("direct", port, "sk-up", (psutil.Process(process.pid),))
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def nexus(upstream_port: int) -> Iterator[Contestant]:
    """Start NEXUS as users do; the key has limits and a budget, so that all of that is at work."""
    with tempfile.TemporaryDirectory(prefix="nexus-bench-") as folder:
        data_dir = Path(folder)
        config = data_dir / "nexus.yaml"
        config.write_text(yaml.safe_dump({"llm": _settings(upstream_port)}))
        with private(data_dir, settings=ALONE, log=data_dir / "instance.log") as (place, process):
            key = _limited_key(place.url, place.key)
            children = psutil.Process(process.pid).children(recursive=True)
            api = tuple(child for child in children if "api" in child.cmdline())
            yield Contestant("nexus", int(place.url.rpartition(":")[2]), key, api)


def _settings(upstream_port: int) -> dict[str, Any]:
    base_url = f"http://127.0.0.1:{upstream_port}/v1"
    deployment = {"provider": "up", "model": MODEL, "price": {"input": 0.15, "output": 0.6}}
    return {
        "local": {"enabled": False},
        "embeddings": {"enabled": False},
        "providers": [{"name": "up", "kind": "openai", "api_key": "sk-up", "base_url": base_url}],
        "routes": [
            {"name": MODEL, "deployments": [deployment]},
            {"name": CACHED, "deployments": [deployment], "cache": {"exact": True, "ttl": 3600}},
        ],
    }


def _limited_key(url: str, admin: str) -> str:
    limits = {"rpm": 100_000_000, "tpm": 2_000_000_000, "parallel": 100_000, "budget_usd": 1_000_000}
    asked = {"name": "bench", "scopes": ["llm:invoke"], **limits}
    headers = {"authorization": f"Bearer {admin}"}
    answer = httpx2.post(f"{url}/api/v1/keys", json=asked, headers=headers, trust_env=False)
    answer.raise_for_status()
    return str(answer.json()["key"])


@contextlib.contextmanager
def nginx(upstream_port: int) -> Iterator[Contestant | None]:
    """Start nginx as a bare reverse proxy; None where it is not installed."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="nexus-nginx-") as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream_port))
        process = subprocess.Popen([program, "-c", str(config), "-p", folder], stderr=subprocess.DEVNULL)
        try:
            _wait(port, 10)
            parent = psutil.Process(process.pid)
            yield Contestant("nginx", port, "sk-up", (parent, *parent.children()))
        finally:
            process.terminate()
            process.wait(10)


_NGINX: Final = """daemon off; worker_processes 1; pid {folder}/pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; keepalive_requests 100000000;
upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
server {{ listen 127.0.0.1:{port} backlog=2048;
location / {{ proxy_pass http://up; proxy_http_version 1.1;
proxy_set_header Connection ""; proxy_buffering off; }} }} }}
"""


@contextlib.contextmanager
def litellm(upstream_port: int, home: Path) -> Iterator[Contestant | None]:
    """Start LiteLLM's proxy from an environment of its own below `home`, made when first needed.

    None where it cannot be installed. No database, no callbacks, one worker, quiet logs.
    """
    programs = own_environment(home / f"litellm-{LITELLM}", [f"litellm[proxy]=={LITELLM}"])
    if programs is None:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="nexus-litellm-") as folder:
        config = Path(folder) / "litellm.yaml"
        entry = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "sk-up"}
        general = {"master_key": "sk-bench-5e2c9a7d41f0"}
        given = {"model_list": [{"model_name": MODEL, "litellm_params": entry}], "general_settings": general}
        config.write_text(yaml.safe_dump(given | {"litellm_settings": {"num_retries": 0}}))
        environment = inherited_environment() | {
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        command = [str(programs / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        command += ["--num_workers", "1"]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, cwd=folder)
        try:
            _wait(port, 120)
            parent = psutil.Process(process.pid)
            found = (parent, *parent.children(recursive=True))
            yield Contestant("litellm", port, "sk-bench-5e2c9a7d41f0", found)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(port: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port}")
