"""The rules of the house (docs/architecture.md), kept by reading the source, not by running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "nexus"
FLOORS: dict[str, int] = {
    "core": 0,
    "storage": 1, "http": 1, "telemetry": 1, "compute": 1,
    "access": 2, "files": 2, "catalog": 2, "ledger": 2, "runs": 2,
    "llm": 3, "vision": 3, "analytics": 3,
    "conversations": 4, "knowledge": 4,
    "automation": 5, "mcp": 5,
    "settings": 6, "metering": 6, "composition": 6, "system": 6, "app": 6, "engine": 6, "programs": 6, "supervision": 6,
    "setup": 6, "smoke": 6, "cli": 6, "bench": 6, "__main__": 6, "__init__": 0,
    "testing": 7,
}  # fmt: skip
# The fakes are for tests, and for the commands that offer them to users.
SHOWS_THE_FAKES = "nexus.cli.fakes"
# Everybody has to know who is asking: these two files of `access` are open to its own floor.
OPEN_TO_THEIR_FLOOR = {"nexus.access.types", "nexus.access.guard"}
SKIPPED = {".git", ".venv", ".cache", "node_modules", "data", "dist", "_ui", "__pycache__", ".mypy_cache"}
NAMELESS = re.compile(r"(^|_)(utils?|helpers?|common|misc|managers?)$|^base_")


@cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        if "migrations" in path.parts or "_ui" in path.parts:
            continue
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def slice_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@dataclass
class Shape:
    """What the rules ask of a file; its syntax tree, a hundred times the size, is not kept."""

    text: str
    docstring: str | None
    top: int
    """How many statements stand on its first level."""
    imports: list[tuple[str, int]] = field(default_factory=list)
    blocks: list[tuple[str, int, int, int]] = field(default_factory=list)
    broad_excepts: list[int] = field(default_factory=list)


@cache
def shape(path: Path) -> Shape:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    found = Shape(text, ast.get_docstring(tree), len(tree.body))
    for node in statements(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.imports += _imports(node)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            limit = 250 if isinstance(node, ast.ClassDef) else 60
            found.blocks.append((node.name, node.lineno, lines, limit))
        elif isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            if broad and not any(isinstance(inner, ast.Raise) and inner.exc is None for inner in statements(node)):
                found.broad_excepts.append(node.lineno)
    return found


def statements(root: ast.AST) -> list[ast.AST]:
    """Every statement below `root`, with its handlers and cases, but none of its ten times as many expressions."""
    found = [root]
    for node in found:
        for part in ("body", "handlers", "orelse", "finalbody", "cases"):
            # A lambda's body, and both ends of a conditional expression, are no lists.
            if isinstance(inner := getattr(node, part, None), list):
                found += inner
    return found


def imports(path: Path) -> list[tuple[str, int]]:
    """Every import of our own, type-only and in-function ones included, as the module it reaches."""
    return shape(path).imports


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, int]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] == "nexus")
    elif node.module and node.module.split(".")[0] == "nexus":
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield (inner if inner in modules() else node.module), node.lineno


def test_every_slice_has_a_floor() -> None:
    assert {slice_of(module) for module in modules()} <= set(FLOORS)


def test_imports_go_down() -> None:
    wrong = []
    for module, path in modules().items():
        here = slice_of(module)
        for target, line in imports(path):
            there = slice_of(target)
            if here == there or target == "nexus":
                continue
            if there == "testing" and module == SHOWS_THE_FAKES:
                continue
            same_floor = FLOORS[here] == FLOORS[there]
            allowed = FLOORS[there] < FLOORS[here] or (
                same_floor and (target in OPEN_TO_THEIR_FLOOR or FLOORS[here] == 6)
            )
            if not allowed:
                wrong.append(f"{module}:{line} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_no_import_circles() -> None:
    graph = {module: {target for target, _ in imports(path)} - {module} for module, path in modules().items()}
    left = {module: {target for target in targets if target in graph} for module, targets in graph.items()}
    while free := [module for module, targets in left.items() if not targets]:
        for module in free:
            del left[module]
        for targets in left.values():
            targets.difference_update(free)
    assert not left, f"a circle among {sorted(left)}"


def test_nothing_sees_the_fakes() -> None:
    wrong = [
        f"{module}:{line}"
        for module, path in modules().items()
        if slice_of(module) != "testing" and module != SHOWS_THE_FAKES
        for target, line in imports(path)
        if slice_of(target) == "testing" and slice_of(module) not in ("bench", "smoke")
    ]
    assert not wrong, wrong


def test_sizes() -> None:
    wrong = []
    for module, path in modules().items():
        if (lines := len(shape(path).text.splitlines())) > 600:
            wrong.append(f"{module} has {lines} lines")
        wrong += [f"{module}:{at} {name} has {n} lines" for name, at, n, limit in shape(path).blocks if n > limit]
    assert not wrong, wrong


def test_contracts_are_short() -> None:
    contracts = ["llm/provider.py", "llm/task.py", "vision/task.py", "vision/backend.py", "analytics/forecaster.py",
                 "analytics/predictor.py", "analytics/detector.py", "automation/step.py",
                 "automation/trigger.py", "automation/channel.py"]  # fmt: skip
    long = [name for name in contracts if len((SOURCE / name).read_text().splitlines()) > 90]
    assert not long


def test_no_nameless_drawers() -> None:
    assert not [module for module in modules() if NAMELESS.search(module.rsplit(".", 1)[-1])]


def test_packages_say_what_they_are_and_export_nothing() -> None:
    for module, path in modules().items():
        if path.name != "__init__.py" or module == "nexus":
            continue
        assert shape(path).docstring, f"{module} says nothing"
        assert shape(path).top == 1, f"{module}/__init__.py holds more than its docstring"


def test_the_environment_is_read_in_settings_only() -> None:
    wrong = []
    for module, path in modules().items():
        if path.name == "settings.py" or slice_of(module) == "testing":
            continue
        if not re.search(r"\b(environ|getenv)\b", shape(path).text):
            continue
        for node in ast.walk(ast.parse(shape(path).text)):
            named = isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
            if named and ast.unparse(node) in ("os.environ", "os.getenv"):
                wrong.append(f"{module}:{node.lineno}")
    assert not wrong, wrong


def test_broad_excepts_raise_again_or_give_a_reason() -> None:
    wrong = []
    for module, path in modules().items():
        lines = shape(path).text.splitlines()
        near = {at: "\n".join(lines[at - 2 : at + 1]) for at in shape(path).broad_excepts}
        wrong += [f"{module}:{at}" for at, said in near.items() if "#" not in said]
    assert not wrong, wrong


def test_a_provider_is_named_in_its_own_file_only() -> None:
    names = {path.stem for path in (SOURCE / "llm" / "providers").glob("*.py")} - {"__init__", "local", "openai"}
    # `openai` is also the name of a dialect, and `local` a word: those two cannot be told apart by text.
    wrong = [
        f"{module}: {name}"
        for module, path in modules().items()
        for name in names
        if path.stem != name and re.search(rf"[\"']{name}[\"']", shape(path).text)
    ]
    assert not wrong, wrong


def test_tests_mirror_the_source() -> None:
    alone = {
        "__init__",
        "__main__",
        "app",
        "engine",
        "composition",
        "metering",
        "setup",
        "programs",
        "supervision",
        "settings",
    }
    slices = {slice_of(module) for module in modules()} - alone - {"smoke", "testing"}
    missing = [name for name in sorted(slices) if not (ROOT / "tests" / name).is_dir()]
    assert not missing, f"no tests for {missing}"


def test_no_path_of_a_machine_and_no_registry_is_named() -> None:
    listed = [path for path in files_below(ROOT) if _ours(path)]
    pattern = re.compile(rb"/root/|/home/\w+/|pypi\.org|files\.pythonhosted|registry\.npmjs|deb\.debian\.org")
    wrong = [str(path.relative_to(ROOT)) for path in listed if pattern.search(path.read_bytes())]
    assert not [name for name in wrong if name != "tests/test_house.py"], wrong


def files_below(folder: Path) -> Iterator[Path]:
    """Every file, without a look into the folders of a thousand others' packages."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name not in SKIPPED:
                yield from files_below(path)
        elif path.is_file():
            yield path


def _ours(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    kept = path.suffix in {".py", ".sh", ".toml", ".md", ".ts", ".tsx", ".json", ".lock", ".yaml", ".yml", ""}
    return kept and not SKIPPED & set(parts) and not any(part.startswith(".") and part != ".ci" for part in parts)
