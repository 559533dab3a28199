-- The type of column messages of a JSONL or Parquet file; no row if it has no such column.
SELECT column_type
FROM (DESCRIBE FROM query(concat('FROM ''', replace($path, '''', ''''''), '''')))
WHERE column_name = 'messages';
