-- Files that lie among the shards and are not read, with the reason.
SELECT table_name, file, reason
FROM unread_files
ORDER BY ALL;
