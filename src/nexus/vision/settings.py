"""What an operator may set about vision: `NEXUS_VISION__*`."""

from __future__ import annotations

from pydantic import BaseModel, Field


class VisionSettings(BaseModel):
    """Limits of the pictures taken in, and how much of the machine vision may use."""

    max_bytes: int = Field(20_000_000, gt=0, description="Bytes of one image file.")
    max_pixels: int = Field(40_000_000, gt=0, description="Pixels of one image, read from its header before decoding.")
    max_side: int = Field(16_384, gt=0, description="Longest side of an image in pixels.")
    workers: int = Field(0, ge=0, description="Images worked on at once; 0 is one for each core.")
    queue: int = Field(32, ge=0, description="Images that may wait for a worker; more are refused with 429.")
    threads: int = Field(1, ge=1, description="Threads inside one network; 1 gives the best throughput.")
    ocr_threads: int = Field(2, ge=1, description="Threads inside the text reader, whose single call is long.")
    timeout: float = Field(60.0, gt=0, description="Seconds that one image may take, waiting included.")
    cache_ttl: float = Field(3600.0, ge=0, description="Seconds that a result is kept for the same image; 0 is never.")
