"""Programs of the peers that `nexus bench runs` measures; each runs in its peer's own virtual environment."""
