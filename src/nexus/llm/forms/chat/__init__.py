"""The chat-completions form, with the older completions and the embeddings beside it."""
