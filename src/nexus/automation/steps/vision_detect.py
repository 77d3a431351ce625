"""The step `vision.detect`."""

from nexus.automation.pictures import VisionStep

plug = VisionStep("detect", "Find the things in a picture.")
