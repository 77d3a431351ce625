"""Ways to find odd rows and moments: one file each, see `nexus.analytics.detector`."""
