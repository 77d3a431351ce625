"""Floor 5: workflows that call every slice below.

Read in this order: `types` (what a definition says), `expressions` (conditions and templates, pure),
`graph` (a definition checked and turned into steps, pure), `document` (YAML with places), `step` +
`steps/` (what a step can do, one file each), `tables`, `storage`, `service`, `schemas`, `routes`.
"""
