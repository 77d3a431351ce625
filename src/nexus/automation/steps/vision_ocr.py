"""The step `vision.ocr`."""

from nexus.automation.pictures import VisionStep

plug = VisionStep("ocr", "Read the text of a picture.")
