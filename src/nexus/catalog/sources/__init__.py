"""Where model files come from, one kind for each file: `source.py` is the contract."""
