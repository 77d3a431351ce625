"""Floor 2: durable work. Every background job of NEXUS is a Run of Steps, and this is its only engine.

The database is the truth; Celery only carries "have a look at this step". Read in this order: `types`,
`errors`, `settings`, `tables`, `transitions` (the state machine, no I/O), `storage` (what the API side
writes and reads), `progress` (what the engine side writes), `service` (the API side), then the engine
process: `signals` (waking without polling), `celery_app`, `memory_transport`, `dispatcher`, `executor`,
`reaper`, `worker`, and last `schemas`, `routes`.
"""
