"""One file for each way in which networks write down what they found; the contract is `nexus.vision.decoder`."""
