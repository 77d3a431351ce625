"""Errors of the model catalogue.

NotFound
|-- ModelNotFound           404 model_not_found
`-- AliasNotFound           404 alias_not_found
Unavailable
|-- ModelNotPulled          503 model_not_pulled
|-- ModelLoadFailed         503 model_load_failed
|-- MemoryFull              503 model_memory_full
`-- SourceUnreachable       503 source_unreachable
Conflict
|-- ModelExists             409 model_exists
|-- ModelInUse              409 model_in_use
|-- ModelDamaged            409 model_damaged
|-- ChecksumMismatch        409 checksum_mismatch
|-- Offline                 409 offline
`-- ConversionFailed        409 conversion_failed
Forbidden
|-- LicenceRefused          403 licence_refused
`-- CatalogueModel          403 catalogue_model
InvalidInput
|-- ModelRefused            422 model_refused
`-- UnsafeArchive           422 unsafe_archive
PreconditionFailed
`-- AliasMoved              412 alias_moved
"""

from __future__ import annotations

from nexus.core.errors import Conflict, Forbidden, InvalidInput, NotFound, PreconditionFailed, Unavailable


class ModelNotFound(NotFound):
    """There is no model of this name or version."""

    code = "model_not_found"


class AliasNotFound(NotFound):
    """The model has no alias of this name."""

    code = "alias_not_found"


class ModelNotPulled(Unavailable):
    """The model is in the catalogue, but its files are not on this machine."""

    code = "model_not_pulled"
    retryable = False


class ModelLoadFailed(Unavailable):
    """The model could not be loaded."""

    code = "model_load_failed"


class MemoryFull(Unavailable):
    """The models in use fill the memory that models may take; try again shortly."""

    code = "model_memory_full"


class SourceUnreachable(Unavailable):
    """None of the places that the model's files come from could be reached."""

    code = "source_unreachable"


class SourceRefused(SourceUnreachable):
    """The place that the file comes from refuses to give it."""

    code = "source_refused"
    retryable = False


class ModelExists(Conflict):
    """A model of this name exists already."""

    code = "model_exists"


class ModelInUse(Conflict):
    """The version is in use: an alias points to it, or it is loaded and busy."""

    code = "model_in_use"


class ModelDamaged(Conflict):
    """The model's files are not what they were when they were stored; it is not loaded."""

    code = "model_damaged"


class ChecksumMismatch(Conflict):
    """A fetched file is not the one that the catalogue names."""

    code = "checksum_mismatch"


class Offline(Conflict):
    """The model's files would have to be downloaded, and this installation is set to stay offline."""

    code = "offline"


class PullCancelled(Conflict):
    """The pull was cancelled; what had been fetched is kept for the next one."""

    code = "pull_cancelled"


class ConversionFailed(Conflict):
    """The fetched files could not be converted."""

    code = "conversion_failed"


class LicenceRefused(Forbidden):
    """The model's licence does not allow commercial use, and this installation refuses such models."""

    code = "licence_refused"


class CatalogueModel(Forbidden):
    """Models of the catalogue belong to every project and cannot be changed by one."""

    code = "catalogue_model"


class ModelRefused(InvalidInput):
    """The file is not a model that may be imported."""

    code = "model_refused"


class UnsafeArchive(InvalidInput):
    """The archive holds an entry that could write outside its folder."""

    code = "unsafe_archive"


class AliasMoved(PreconditionFailed):
    """The alias has been moved since it was read."""

    code = "alias_moved"
