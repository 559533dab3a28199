"""Memory: tables of immutable Parquet shards and the DuckDB views over them."""
