"""What can be wrong with data and with what is asked of it.

InvalidInput   InvalidTable        422 invalid_table        not a table that can be read
               ColumnNotFound      422 column_not_found
               InvalidValue        422 invalid_value        names column and row
               InvalidSeries       422 invalid_series       duplicates, gaps, irregular or too short
               FrequencyUnclear    422 frequency_unclear
               UnknownMethod       422 unknown_method       no such forecaster, predictor or detector
               NotATabularModel    422 not_a_tabular_model
               CannotLearn         422 cannot_learn         nothing to learn from these data
TooLarge       TableTooLarge       413 table_too_large
NotFound       DatasetNotFound     404 dataset_not_found
NexusError     ModelFilesBroken    500 model_files_broken
"""

from __future__ import annotations

from nexus.core.errors import InvalidInput, NexusError, NotFound, TooLarge

_SHOWN = 64


def shown(name: object) -> str:
    """Return a name of the user's own as it may stand in a message: short and printable."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(name))
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


class InvalidTable(InvalidInput):
    """The data could not be read as a table."""

    code = "invalid_table"


class ColumnNotFound(InvalidInput):
    """The table has no such column."""

    code = "column_not_found"


class InvalidValue(InvalidInput):
    """A cell of the table does not hold what its column must hold."""

    code = "invalid_value"

    @classmethod
    def at(cls, column: object, row: int, must: str) -> InvalidValue:
        """Describe the cell: `row` counts the data rows from 1, the header left out."""
        name = shown(column)
        return cls(f"Column {name}, row {row}: {must}.", field=name, column=name, row=row)


class InvalidSeries(InvalidInput):
    """A series cannot be forecast as it is."""

    code = "invalid_series"


class FrequencyUnclear(InvalidInput):
    """The frequency of the series is not clear; name it."""

    code = "frequency_unclear"


class UnknownMethod(InvalidInput):
    """There is no method of this name."""

    code = "unknown_method"


class NotATabularModel(InvalidInput):
    """This model does not predict rows of a table."""

    code = "not_a_tabular_model"


class CannotLearn(InvalidInput):
    """There is nothing to learn from these data."""

    code = "cannot_learn"


class TableTooLarge(TooLarge):
    """The table is larger than allowed."""

    code = "table_too_large"


class DatasetNotFound(NotFound):
    """There is no data set of this id."""

    code = "dataset_not_found"


class ModelFilesBroken(NexusError):
    """The files of the model cannot be read."""

    code = "model_files_broken"
