"""The forms in which providers and clients speak, and ours between them: plain functions on decoded JSON, no I/O.

One room for each form: `chat` (chat completions, completions, embeddings), `responses`, `messages`, `gemini`,
`converse`. In each, `requests` reads and writes what is asked and `answers` what comes back; the other files hold what
those two need. Beside the rooms stands what several forms share, `decoding` (strict input) first.
"""
