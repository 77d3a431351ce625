"""Floor 6: the command line, one file for each group of commands.

Read in this order: `main` (the list), `instance` (finding or starting a server), `output` (tables,
JSON, progress), then the groups.
"""
