"""The caches: one file a back-end, each fulfilling `nexus.storage.cache.Cache`."""
