"""The step `vision.classify`."""

from nexus.automation.pictures import VisionStep

plug = VisionStep("classify", "Say what a picture shows.")
