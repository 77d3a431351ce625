"""The files that AWS's own tools share: `~/.aws/config` and `~/.aws/credentials`, and programs that they name.

Source: https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import logging
import os
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

from nexus.llm.settings import Surroundings

_log = logging.getLogger("nexus.llm.aws")
_PROCESS_SECONDS = 10


class Profiles:
    """The profiles of both files; where both know a key, the credentials file wins."""

    def __init__(self, around: Surroundings) -> None:
        """Read the files now; what is not there or cannot be read is empty."""
        told = around.variables
        self._home = around.home
        self.config = Path(told.get("AWS_CONFIG_FILE") or around.home / ".aws" / "config").expanduser()
        self.credentials = Path(
            told.get("AWS_SHARED_CREDENTIALS_FILE") or around.home / ".aws" / "credentials"
        ).expanduser()
        self._sections = {_profile_name(name): values for name, values in _read(self.config).items()}
        self._sessions = {
            name: values for name, values in _read(self.config).items() if name.startswith("sso-session ")
        }
        for name, values in _read(self.credentials).items():
            self._sections[name] = self._sections.get(name, {}) | values

    def get(self, name: str) -> dict[str, str] | None:
        """Return the settings of a profile."""
        return self._sections.get(name)

    def sign_in(self, profile: dict[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the settings of a profile's single sign-on, and the token that `aws sso login` left."""
        session = profile.get("sso_session")
        told = profile | self._sessions.get(f"sso-session {session}", {})
        key = (session or told.get("sso_start_url", "")).encode()
        name = hashlib.sha1(key, usedforsecurity=False).hexdigest()
        try:
            token = json.loads((self._home / ".aws" / "sso" / "cache" / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return told, {}
        return told, token if isinstance(token, dict) else {}

    def run(self, command: str) -> dict[str, Any] | None:
        """Run a profile's `credential_process` and return what it prints; None where it fails or may not be run.

        It is run without a shell, and only where nobody but its owner may write the file that names it.
        """
        if not _only_ours(self.config):
            _log.warning("credential_process is not run: others may write the AWS config file")
            return None
        try:
            words = shlex.split(command)
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROCESS_SECONDS, check=True
            )
            told = json.loads(done.stdout)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            _log.warning("credential_process failed: %s", type(error).__name__)
            return None
        return told if isinstance(told, dict) and told.get("Version") == 1 else None


def _read(path: Path) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(default_section="\0", strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        _log.warning("%s cannot be read: %s", path.name, type(error).__name__)
        return {}
    return {name: dict(parser.items(name)) for name in parser.sections()}


def _profile_name(section: str) -> str:
    """Return the profile of a section of the config file: `profile x`, or `default`."""
    words = section.split(None, 1)
    return words[1].strip("\"' ") if len(words) == 2 and words[0] == "profile" else section


def _only_ours(path: Path) -> bool:
    try:
        seen = path.stat()
    except OSError:
        return True
    return seen.st_uid in (os.getuid(), 0) and not seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
