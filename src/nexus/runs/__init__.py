"""Floor 2: durable work. Every background job of NEXUS is a Run of Steps, and this is its only engine.

The database is the truth; Celery only carries "have a look at this step". Read in this order: `types`,
`errors`, `settings`, `tables`, `transitions` (the state machine, no I/O), `graph` (which runs make sense),
`storage` (queries of the API side), `service`, `schemas`, `routes`; then the engine process: `engine_storage`
(claims, leases, messages), `completion` (how an attempt ends), `signals` (waking without polling),
`celery_app` and `memory_transport`, `dispatcher`, `attempt`, `executor`, `pulse`, `reaper`, `worker`.
"""
