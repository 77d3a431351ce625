"""Floor 1: the plumbing of the web, knowing no domain.

Read in this order: `types`, `errors`, `settings`, `problem` (every error becomes an answer there),
`body` and `uploads` (what comes in), `sse`, `paging` and `static` (what goes out), `fetch` (the only way
to reach a URL that a user named), `middleware/` (one file each), `edge` (their order), `lifecycle`,
`probes`, `protocol` and `server` (the process), `depends` (how a route finds its service).
"""
