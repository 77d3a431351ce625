"""What goes wrong in data pipelines.

InvalidInput
|-- DataUnreadable         422 data_unreadable         the file is not what it should be
|-- QueryInvalid           422 query_invalid           the SQL does not hold, or asks for what it may not
|-- DataInvalid            422 data_invalid            rows break the rules that they are checked by
`-- DatabaseNotAllowed     422 database_not_allowed    an address that may not be reached from here
NexusError
`-- DatabaseRefused        502 database_refused
    `-- DatabaseAway       502 database_away, retryable
"""

from __future__ import annotations

from nexus.core.errors import InvalidInput, NexusError


class DataUnreadable(InvalidInput):
    """The data cannot be read as a table."""

    code = "data_unreadable"


class QueryInvalid(InvalidInput):
    """The query is not valid."""

    code = "query_invalid"


class DataInvalid(InvalidInput):
    """The data break the rules."""

    code = "data_invalid"


class DatabaseNotAllowed(InvalidInput):
    """This database may not be reached from here."""

    code = "database_not_allowed"


class DatabaseRefused(NexusError):
    """The database did not do what it was asked."""

    code = "database_refused"
    status = 502


class DatabaseAway(DatabaseRefused):
    """The database does not answer for the moment."""

    code = "database_away"
    retryable = True
