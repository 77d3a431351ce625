"""Provider kinds: one file each, or a row of `../compatible.toml`. The contract is `nexus.llm.provider`."""
