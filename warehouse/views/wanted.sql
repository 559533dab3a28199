-- What the run of this connection wants. A run registers relations of these names, which take the
-- place of the empty tables: the prompts that it asks, each with its spec, and its traces, each with
-- the spec that it is judged under and the judging of the scores that came with it.
CREATE TABLE wanted (prompt_id VARCHAR, spec_id VARCHAR);

CREATE TABLE wanted_traces (completion_id VARCHAR, spec_id VARCHAR, judging_id VARCHAR);

-- The completions that the run wants: those of its prompts, and its traces. `judging_id` is null
-- where the run's own judge judges.
CREATE VIEW wanted_completions AS
SELECT c.completion_id, c.generation_id, c.spec_id, NULL AS judging_id, false AS is_trace
FROM completions_all AS c
SEMI JOIN wanted AS w ON c.prompt_id = w.prompt_id AND c.spec_id = w.spec_id
UNION ALL
SELECT c.completion_id, c.generation_id, w.spec_id, w.judging_id, true
FROM wanted_traces AS w
JOIN completions_all AS c USING (completion_id);
