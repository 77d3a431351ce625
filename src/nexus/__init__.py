"""NEXUS: one self-hosted platform for language models, vision, analytics and automation."""

__version__ = "0.1.0"
