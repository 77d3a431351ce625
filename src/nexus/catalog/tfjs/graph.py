"""The graph as TensorFlow wrote it: nodes, attributes, and the order to visit them in.

The JSON is that of GraphDef (tensorflow/core/framework/graph.proto) as tfjs-converter prints it.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from nexus.catalog.errors import ConversionFailed


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. `inputs` are names of values: `node`, or `node:1` for a further output."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def fail(self, why: str) -> ConversionFailed:
        """Return the error that says which operation cannot be converted and why."""
        return ConversionFailed(f"The operation {self.op} cannot be converted: {why}.", node=self.name)


def read_nodes(topology: Mapping[str, Any]) -> dict[str, Node]:
    """Return the nodes of a graph by name."""
    return {node["name"]: _node(node) for node in topology["node"]}


def producer(value: str) -> str:
    """Return the node that makes a value."""
    return value.partition(":")[0]


def canonical(value: str) -> str:
    """Return the one name of a value: `node` and `node:0` are the same."""
    return value.removesuffix(":0")


def visiting_order(nodes: Mapping[str, Node], outputs: Collection[str], cuts: Collection[str]) -> list[Node]:
    """Return what the outputs need, every node after its inputs; nothing before a cut.

    Raises `ConversionFailed` when a node is missing.
    """
    ordered: list[Node] = []
    seen: set[str] = set()
    stack = [(producer(name), False) for name in outputs]
    while stack:
        name, inputs_done = stack.pop()
        if inputs_done:
            ordered.append(nodes[name])
            continue
        if name in seen:
            continue
        seen.add(name)
        if name not in nodes:
            raise ConversionFailed("The graph names a node that it does not have.")
        stack.append((name, True))
        if name not in cuts:
            stack += [(producer(value), False) for value in nodes[name].inputs]
    return ordered


def _node(node: Mapping[str, Any]) -> Node:
    inputs = tuple(name for name in node.get("input", []) if not name.startswith("^"))
    attributes = {key: _attribute(value) for key, value in node.get("attr", {}).items()}
    return Node(node["name"], node["op"], inputs, attributes)


def _attribute(value: Mapping[str, Any]) -> Any:
    content: Any
    kind, content = next(iter(value.items()), ("", None))
    if kind == "s":
        return base64.b64decode(content).decode()
    if kind == "i":
        return int(content)
    if kind == "shape":
        return [int(dimension["size"]) for dimension in content.get("dim", [])]
    if kind == "list":
        if "s" in content:
            return [base64.b64decode(text).decode() for text in content["s"]]
        return [int(number) for number in content.get("i", [])]
    return content
