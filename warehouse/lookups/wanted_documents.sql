-- The documents that a midtraining wants, usable or not. Reads relation `wanted_documents(subject_id)`.
SELECT document_id, kind, status, reason, text
FROM documents
SEMI JOIN wanted_documents USING (subject_id)
WHERE documenting_id = $documenting_id AND sample_index < $samples
ORDER BY document_id;
