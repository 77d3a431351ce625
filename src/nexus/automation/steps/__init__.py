"""What a step of a workflow can do: one file each, `vision_ocr.py` is `uses: vision.ocr`."""
