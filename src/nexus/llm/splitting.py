"""Cuts long texts where a reader would."""

from __future__ import annotations

import re


def split(text: str, size: int) -> list[str]:
    """Cut `text` into pieces of at most `size` characters: at paragraphs, else sentences, else words, else anywhere."""
    text = text.strip()
    if len(text) <= size:
        return [text]
    for pattern in (r"\n\s*\n", r"(?<=[.!?。！？])\s+", r"\s+"):  # noqa: RUF001  full-width stops end sentences too
        units = [unit for unit in re.split(pattern, text) if unit.strip()]
        if len(units) > 1:
            joint = "\n\n" if pattern.startswith(r"\n") else " "
            return _pack(units, size, joint)
    return [text[start : start + size] for start in range(0, len(text), size)]


def _pack(units: list[str], size: int, joint: str) -> list[str]:
    pieces: list[str] = []
    held = ""
    for unit in units:
        if held and len(held) + len(joint) + len(unit) > size:
            pieces.append(held)
            held = ""
        if len(unit) > size:
            *whole, held = split(unit, size)
            pieces += whole
        else:
            held = f"{held}{joint}{unit}" if held else unit
    return [*pieces, held] if held else pieces
