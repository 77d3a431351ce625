"""Ways from foreign model files to ONNX, one for each file: `conversion.py` is the contract."""
