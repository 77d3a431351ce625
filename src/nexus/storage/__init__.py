"""Floor 1: where things are kept.

Read in this order: `settings`, `exchange` (many statements in one journey), `db` (one relational
database), `blob_store` + `blobs/` (bytes by SHA-256), `cache` + `caches/` (values that may be
forgotten), `migrations/`.
"""
