"""Floor 2: which models there are, where their files come from, and which are in memory.

A *model* has numbered, immutable *versions*; an *alias* (`champion`) is a movable name of one. Models
of the catalogue (`catalogue.toml`) are the same for every project; own models belong to theirs.

Read in this order: `types`, `errors`, `settings`, `catalogue` (the rows), `source` + `sources/` (where
files come from: `download`, `archives`, `client`), `conversion` + `conversions/` (foreign formats to
ONNX: `onnx_writer`, `torch_state`, `tfjs/`), `disk` (the folders of pulled models), `pull`, `shelf`, `tables`,
`storage`, `own_files` + `own` (signed own versions), `aliases`, `inspection` (what an import may hold),
`pool` (loaded models), `service`, `importing`, `schemas`, `routes`, `jobs`.
"""
