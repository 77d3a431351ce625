"""The folder listing is the list."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nexus.core.errors import NotFound
from nexus.core.plugins import PlugBroken, PluginFolder


class Greeter:
    def greet(self) -> str:
        return "hello"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginFolder[Greeter]:
    package = tmp_path / "greeters_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "warm_hello.py").write_text(f"from {__name__} import Greeter\nplug = Greeter()\n")
    (package / "broken.py").write_text("plug = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("greeters_of_a_test")]:
        del sys.modules[name]
    return PluginFolder("greeters_of_a_test", Greeter, noun="greeter", dotted=True)


def test_lists_without_importing_and_loads_on_use(folder: PluginFolder[Greeter]) -> None:
    assert folder.names() == ["broken", "warm.hello"]
    assert "greeters_of_a_test.warm_hello" not in sys.modules
    assert folder.get("warm.hello").greet() == "hello"


def test_unknown_and_broken_plugs_say_so(folder: PluginFolder[Greeter]) -> None:
    with pytest.raises(NotFound, match="greeter"):
        folder.get("cold")
    with pytest.raises(PlugBroken, match="Greeter"):
        folder.get("broken")
