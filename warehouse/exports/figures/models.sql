-- Models whose words left, with their revisions: who generated, or made a trace, and who judged.
SELECT
    if(c.spec_id IS NULL, 'trace', 'generator') AS role, c.model, count(*) AS num_rows
FROM completions AS c
SEMI JOIN leaving AS l USING (completion_id)
GROUP BY ALL
UNION ALL
-- Completions may share a judgement.
SELECT 'judge', j.model, count(DISTINCT j.judgement_id)
FROM votes AS j
JOIN leaving AS l ON l.completion_id = j.completion_id AND l.judging_id = j.judging_id
GROUP BY ALL
ORDER BY role, model;
