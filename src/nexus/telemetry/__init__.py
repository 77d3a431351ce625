"""Floor 1: what the process says about itself.

Read in this order: `settings`, `context` (the ids of the present request), `redact` (what never reaches a log),
`logs`, `metrics` (the one list of names), `gpus`, `system` (the one sampler), `traces` (spans, W3C traceparent).
"""
