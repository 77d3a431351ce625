"""Bytes to and from upstreams.

A `client` of `connection`s, frames of streams (`sse`, `eventstream`), and what the endpoints of one maker share
(`openai`, `bedrock`).
"""
