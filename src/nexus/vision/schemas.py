"""The shapes of vision's routes, for the OpenAPI document and for what surrounds a task's own parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from nexus.http.handlers import issues_of
from nexus.http.problem import ValidationFailed


class Presentation(BaseModel):
    """How the answer is to look: as JSON, as COCO's JSON, or as a picture with everything drawn on it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    annotate: Literal["png"] | None = None
    format: Literal["json", "coco"] = "json"

    @classmethod
    def of(cls, *places: Mapping[str, Any]) -> Presentation:
        """Read it from the query and the body, the later place winning. Raises `ValidationFailed`."""
        given = {
            name: place[name] for place in places for name in cls.model_fields if place.get(name) not in (None, "")
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise ValidationFailed(issues_of(error.errors())) from None


class ModelChoiceShown(BaseModel):
    """A model that can do a task, and whether it is here."""

    name: str
    version: int
    state: str
    licence: str


class TaskShown(BaseModel):
    """One thing that can be asked of a picture."""

    name: str
    title: str
    parameters: dict[str, Any]
    models: list[ModelChoiceShown]


class Limits(BaseModel):
    """What is refused, and how much is worked on at once."""

    max_bytes: int
    max_pixels: int
    max_side: int
    formats: list[str]
    workers: int
    queue: int


class Tasks(BaseModel):
    """Every vision task of this installation."""

    data: list[TaskShown]
    limits: Limits


REQUEST = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "model": {"type": "string"},
                        "annotate": {"type": "string", "enum": ["png"]},
                        "format": {"type": "string", "enum": ["json", "coco"]},
                    },
                    "additionalProperties": {"type": "string"},
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file_id": {"type": "string"},
                        "url": {"type": "string", "format": "uri"},
                        "base64": {"type": "string"},
                        "model": {"type": "string"},
                    },
                    "additionalProperties": True,
                }
            },
        },
    }
}
"""A task's own parameters are listed by `GET /api/v1/vision/tasks`."""
