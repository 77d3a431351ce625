"""Floor 2: who asks, and what they may do.

Read in this order: `types`, `errors`, `settings`, `tables`, `keys` (the form of an API key),
`passwords`, `roles`, `storage`, `service`, `guard` (what routes depend on), `schemas`, `routes`.
"""
