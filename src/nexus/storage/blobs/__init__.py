"""The places that keep blobs: one file a back-end."""
