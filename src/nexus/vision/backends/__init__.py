"""One file for each back-end; the contract is `nexus.vision.backend`."""
