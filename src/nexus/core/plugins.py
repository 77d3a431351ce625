"""Plug folders: a folder of files, each of which adds one thing of one kind.

A plug is one module with a public object called `plug` that fulfils the folder's contract. Its
name is its file name, the first underscore read as a dot where the folder says so
(`vision_ocr.py` is `vision.ocr`). The folder listing is the list: nothing is registered by hand.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cached_property
from typing import Generic, TypeVar

from nexus.core.errors import NexusError, NotFound

T = TypeVar("T")


class PlugBroken(NexusError):
    """A plug file does not fulfil its contract."""

    code = "plug_broken"


class PluginFolder(Generic[T]):
    """The plugs of one package, listed without importing and loaded on first use."""

    def __init__(self, package: str, contract: type[T], *, noun: str, dotted: bool = False) -> None:
        """Describe the folder.

        `contract` is an ABC or a runtime-checkable protocol; `noun` names a plug in error
        messages ("vision task"); `dotted` reads the first underscore of a file name as a dot.
        """
        self.package = package
        self.contract = contract
        self.noun = noun
        self.dotted = dotted
        self._loaded: dict[str, T] = {}

    @cached_property
    def _modules(self) -> dict[str, str]:
        package = importlib.import_module(self.package)
        found = (module.name for module in pkgutil.iter_modules(package.__path__))
        return {self._plug_name(name): f"{self.package}.{name}" for name in sorted(found)}

    def _plug_name(self, module: str) -> str:
        return module.replace("_", ".", 1) if self.dotted else module

    def names(self) -> list[str]:
        """Return the names of all plugs, sorted, importing none of them."""
        return list(self._modules)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def get(self, name: str) -> T:
        """Return the plug called `name`.

        Raises `NotFound` for an unknown name and `PlugBroken` for a file without a fitting `plug`.
        """
        if name not in self._loaded:
            module = self._modules.get(name)
            if module is None:
                raise NotFound(f"There is no {self.noun} of this name.")
            plug = getattr(importlib.import_module(module), "plug", None)
            if not isinstance(plug, self.contract):
                raise PlugBroken(f"{module} has no `plug` that is a {self.contract.__name__}.")
            self._loaded[name] = plug
        return self._loaded[name]

    def all(self) -> dict[str, T]:
        """Load and return every plug by name."""
        return {name: self.get(name) for name in self.names()}
