"""Text tasks: one file each. The contract is `nexus.llm.task`."""
