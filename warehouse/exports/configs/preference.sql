-- The best accepted against the worst rejected completion of each prompt that has both, as view
-- `preference_pairs` has them: whom people reject or dispute is not the best, and whom they accept or
-- dispute not the worst. Texts are joined last, so that no sort holds them.
WITH best AS (
    FROM leaving
    WHERE verdict = 'accepted' AND coalesce(review, 'unsure') NOT IN ('rejected', 'disputed')
    QUALIFY row_number() OVER (
        PARTITION BY prompt_id, spec_id, generation_id, judging_id
        ORDER BY score DESC, completion_id
    ) = 1
),
worst AS (
    FROM leaving
    WHERE verdict = 'rejected' AND coalesce(review, 'unsure') NOT IN ('accepted', 'disputed')
    QUALIFY row_number() OVER (
        PARTITION BY prompt_id, spec_id, generation_id, judging_id
        ORDER BY score, completion_id
    ) = 1
)
SELECT
    b.completion_id, b.completion_id AS chosen_id, w.completion_id AS rejected_id, b.prompt_id,
    b.category, b.categories, b.ideal_response, b.language, b.source, b.transform, b.model,
    b.spec_id, b.score AS chosen_score, w.score AS rejected_score,
    p.messages,
    cb.reasoning AS chosen_reasoning, cb.answer AS chosen_answer,
    cw.reasoning AS rejected_reasoning, cw.answer AS rejected_answer
FROM best AS b
JOIN worst AS w USING (prompt_id, spec_id, generation_id, judging_id)
JOIN completions AS cb ON cb.completion_id = b.completion_id
JOIN completions AS cw ON cw.completion_id = w.completion_id
JOIN prompts AS p ON p.prompt_id = b.prompt_id
