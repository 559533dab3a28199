-- The type of column messages of a JSONL or Parquet file; no row if it has no such column.
SELECT column_type
FROM (DESCRIBE FROM query(concat(
    'FROM read_', if(ends_with(lower($path), '.parquet'), 'parquet', 'json'), '(''',
    replace(regexp_replace($path, '([*?[])', '[\1]', 'g'), '''', ''''''),
    ''', hive_partitioning = false)'
)))
WHERE column_name = 'messages';
