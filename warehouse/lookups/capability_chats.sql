-- The chats of a capability file, in the order of the hash of their texts.
SELECT row_id, messages, reasoning, answer
FROM read_parquet($path, hive_partitioning = false)
ORDER BY row_id;
