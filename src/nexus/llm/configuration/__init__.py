"""Providers and routes that administrators add over the API."""
