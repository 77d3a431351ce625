"""What every request passes, one file each, outermost first (`nexus.http.edge` builds this order).

`request_id`, `proxies`, `access_log`, `security_headers`, `catch_errors`, `probes` (of `nexus.http`),
`inflight`, `hosts`, `origins`, `body_limit`, then the caller's own layers; `strict_json` stands directly
before FastAPI. All are plain ASGI: a class with `__init__(app, ...)` and `__call__(scope, receive, send)`.
"""
