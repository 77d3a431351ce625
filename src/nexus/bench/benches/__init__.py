"""The benchmarks, one file each: `nexus bench NAME`."""
