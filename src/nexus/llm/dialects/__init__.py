"""Wire forms that clients speak to us: one file each. The contract is `nexus.llm.dialect`."""
