"""Models on this machine.

Children that serve them (`server`), found or started (`runtime`, `children`), by name (`models`, `own_routes`); the
built-in `embedder` works in our own process.
"""
