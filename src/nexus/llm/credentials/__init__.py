"""Credentials of clouds, found and renewed without the clouds' own libraries."""
