-- Every judgement, a row for each completion that shares it, without the judge's words.
SELECT * EXCLUDE (rationale, num_prompt_tokens, num_cached_tokens, num_output_tokens, finish_reason)
FROM memory.main.judgements_all;
