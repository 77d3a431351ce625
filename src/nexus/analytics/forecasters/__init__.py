"""Ways to continue series: one file each, see `nexus.analytics.forecaster`."""
