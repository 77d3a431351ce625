"""Answers kept and given again.

`answers` is the story, `key` says when two requests are the same, `flight` lets many wait for one call, `overhearing`
takes down what passes, `kept` is how it lies, `semantic` finds what means the same; `embeddings` keeps each input by
itself.
"""
