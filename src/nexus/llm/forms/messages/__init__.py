"""The Messages form.

`requests` and `answers` with their `blocks`, the `stream` of events, and what each generation of `claude` takes.
"""
