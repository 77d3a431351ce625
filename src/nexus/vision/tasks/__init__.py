"""One file for each vision task; the contract is `nexus.vision.task`."""
