"""Language models behind one door: chat, streams, embeddings, text tasks; any provider, any dialect.

Read in this order: `types`, `errors`, `settings`; the contracts `provider`, `dialect`, `task`; then `routing`,
`pricing`, `accounting` (pure); `connection`, `client`, `sse` (the wire); `flow`, `service` (the story); `hot` (the
raw ASGI door of `/v1`), `routes`. Plugs: `providers/`, `dialects/`, `tasks/`, and rows of `compatible.toml`.
The built-in model: `local_server` (child process), `local_runtime` (finds and starts it), `embedder`.
"""
