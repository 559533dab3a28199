-- The chats of a JSONL or Parquet file, in the order of the hash of their texts.
SELECT
    left(sha256(messages::JSON::VARCHAR), 32) AS row_id,
    messages[:-2] AS messages,
    coalesce(messages[-1].reasoning_content, '') AS reasoning,
    coalesce(messages[-1].content, '') AS answer
FROM query(concat(
    'FROM read_', if(ends_with(lower($path), '.parquet'), 'parquet', 'json'), '(''',
    replace(regexp_replace($path, '([*?[])', '[\1]', 'g'), '''', ''''''),
    ''', hive_partitioning = false)'
))
ORDER BY row_id;
