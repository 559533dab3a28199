-- The completions that the filters leave.
SELECT number
FROM app.rows
WHERE ($run::VARCHAR IS NULL OR run_id = $run)
  AND (len($categories::VARCHAR[]) = 0 OR list_contains($categories, category))
  AND (len($ideal_responses::VARCHAR[]) = 0 OR list_contains($ideal_responses, ideal_response))
  AND (len($verdicts::VARCHAR[]) = 0 OR list_contains($verdicts, verdict))
  AND (len($languages::VARCHAR[]) = 0 OR list_contains($languages, language))
  AND (len($sources::VARCHAR[]) = 0 OR list_contains($sources, source))
  AND ($rule::VARCHAR IS NULL OR list_contains(cited, $rule) OR list_contains(cited_unknown, $rule))
  AND (($lowest <= 0 AND $highest >= 10) OR min_score BETWEEN $lowest AND $highest)
  AND ($text = '' OR number IN (FROM found));
