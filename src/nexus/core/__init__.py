"""Floor 0: what every slice stands on. No web, no database, no domain.

Read in this order: `errors`, `ids`, `clock`, `secrets`, `plugins`.
"""
