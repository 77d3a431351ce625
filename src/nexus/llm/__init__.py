"""Language models behind one door: chat, streams, embeddings, text tasks; any provider, any dialect.

Read in this order:

1. The nouns and contracts: `types`, `errors`, `settings`; `dialect` (how clients speak to us), `provider` (how we
   speak upstream), `task`, `session` (a dialect with a memory).
2. One call, from top to bottom: `hot` (the doors, raw ASGI), `service` (the story), `registry` (names to deployments,
   with `account` and `compatible.toml`), `flow` (a stream on its way), `departures` (who leaves before the end).

Its rooms, in the order in which a call passes them:

- `forms/`: how providers and clients say things, and our own form between them; pure functions, no I/O.
- `money/`: limits before, the row after, and what models cost.
- `cache/`: answers kept.
- `routing/`: which deployment, and what is tried when one fails.
- `wire/`: the client and the frames of streams; `credentials/`: what clouds want to see.
- `local/`: the models of this machine.
- `responses/`: answers with a memory, `tables` and `storage` below them.
- `configuration/`: providers and routes over the API.

Beside them `named_files` (uploads that requests name), `embeddings` with `pieces`, `text` with `structured` and
`splitting` (text tasks), `routes` and what it gathers, `jobs`. Plugs: `providers/`, `dialects/`, `tasks/`.
"""
