"""Floor 2: what users upload and what runs leave behind, by file id.

Read in this order: `types`, `errors`, `settings`, `tables`, `sniff` (what bytes really are),
`storage`, `service`, `routes`.
"""
