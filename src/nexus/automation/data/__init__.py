"""Data of pipelines: tables that travel between steps as Parquet files, and where they come from and go to."""
