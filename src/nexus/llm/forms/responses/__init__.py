"""The Responses form: `requests` and whole `answers` with their `items`, and the `events` of streams."""
