"""Responses that outlive their call.

Kept, referred to and read again (`service`, `session`); made in the background (`background`, `telling`, `carried`).
"""
