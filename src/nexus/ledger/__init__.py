"""Floor 2: what was done, by whom, with which model, and what it cost.

One `Invocation` row for every call of every kind is the usage ledger, the cost report, the
prediction history and the source of budgets. Read in this order: `types`, `errors`, `settings`,
`tables`, `journal` (the file that survives a kill), `batcher` (file to database), `storage`,
`service`, `csv_export`, `schemas`, `routes`.
"""
