"""Floor 6: the installation as a whole, as its operator sees it.

Read in this order: `service` (what is known), `events` (one stream of everything live), `routes`.
"""
