"""Language models behind one door: chat, streams, embeddings, text tasks; any provider, any dialect.

Read in this order:

1. The nouns and contracts: `types`, `errors`, `settings`; `dialect` (how clients speak to us), `provider` (how we
   speak upstream), `task`, `session` (a dialect with a memory).
2. One call, from top to bottom: `hot` (the doors, raw ASGI), `service` (the story), `registry` (names to deployments),
   `fitting` and `abilities` (what a model cannot do), `admission` (limits before), `delivery` (deployments in order:
   `routing`, `standing`, `quotas`, `continuation`), `flow` (a stream on its way), `accounting` and `pricing` (the row).
3. The wire: `client`, `connection`, `account`; `sse` and `eventstream` (frames of streams); `decoding` (strict input),
   `upstream_json`.
4. The codecs, pure functions named by wire form, requests in `*_json`, answers in `*_answers`: `chat_*` with
   `openai_wire` and `embeddings_json`; `responses_*`; `messages_*` with `claude` and `signatures`; `gemini_*` with
   `google_credentials`; `converse_*`, `invoke*` and `bedrock_wire` with `sigv4` and `aws_*`.
5. Answers kept: `answer_cache` with `cache_key`, `flight` (one call for many), `overhearing`, `assembly`, `kept`,
   `semantic_cache`. Responses kept: `responses_service`, `responses_session`, `tables`, `storage`.
6. Beside the calls: `text` and `structured` (text tasks), `configuration` (providers over the API), `health`,
   `published_prices` and `price_book`, `routes` and what it gathers, `jobs`; the built-in models `local_server` (a
   child process), `local_runtime` (finds and starts it), `embedder`.

Plugs: `providers/`, `dialects/`, `tasks/`; rows: `compatible.toml`, `abilities.toml`, `converse_families.toml`.
"""
