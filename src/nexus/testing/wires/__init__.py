"""One file for each wire format that the fake upstream speaks; each has a `plug` that is a `Wire`."""
