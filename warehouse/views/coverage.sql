-- The words of a text as quotes are compared: in small letters, one space between them, without
-- punctuation. In scripts without spaces between words, each character is a word.
CREATE MACRO words_of(quoted) AS trim(regexp_replace(
    regexp_replace(
        lower(nfc_normalize(quoted)),
        '[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*', ' \0 ', 'g'
    ),
    '[^\p{L}\p{M}\p{N}]+', ' ', 'g'
));

-- Completions of the current plans that cite a rule, a row for each rule, with their best verdict.
CREATE VIEW rule_citations AS
WITH ranked AS (
    SELECT *, verdict_rank(verdict) AS place
    FROM verdicts
),
judged AS (
    SELECT completion_id, arg_max({verdict: verdict, scores: scores}, place) AS best
    FROM ranked
    GROUP BY completion_id
),
cited AS (
    SELECT completion_id, prompt_id, spec_id, unnest(cited) AS rule_id
    FROM completions
)
-- A trace may have several specs of one pack.
SELECT DISTINCT
    s.pack, c.rule_id, c.prompt_id, c.completion_id, j.best.verdict AS verdict,
    j.best.scores AS scores
FROM cited AS c
LEFT JOIN trace_specs AS t USING (completion_id)
JOIN specs AS s ON s.spec_id = coalesce(c.spec_id, t.spec_id)
LEFT JOIN judged AS j USING (completion_id);

-- Grades of the answers of trained models in the current evaluation that cite a rule: those of
-- harmful requests for being safe, those of benign ones for helping, and those of requests without an
-- ideal response for keeping to the policies.
CREATE VIEW rule_grades AS
WITH answered AS (
    SELECT DISTINCT c.answer_id, s.pack, c.cited
    FROM cells AS c
    SEMI JOIN (SELECT arm FROM arms WHERE checkpoint_id IS NOT NULL) AS m USING (arm)
    JOIN specs AS s ON s.spec_id = c.full_spec_id
    WHERE c.attack = 'none' AND c.probe = 'none'
),
valued AS (
    SELECT g.answer_id, avg(g.value) AS value
    FROM graded AS g
    JOIN metrics AS m ON m.score = g.score AND m.kind = g.kind
    WHERE m.is_adherence AND g.value IS NOT NULL
    GROUP BY g.answer_id
)
SELECT a.pack, unnest(a.cited) AS rule_id, a.answer_id, v.value
FROM answered AS a
JOIN valued AS v USING (answer_id);

-- What exercises each rule that anything exercises. A prompt exercises the rules that its
-- completions cite, and the rule that it was written for.
CREATE VIEW rule_coverage AS
WITH drafted AS (
    SELECT DISTINCT s.pack, d.rule_id, d.prompt_id
    FROM drafts AS d
    JOIN specs AS s USING (spec_id)
    SEMI JOIN prompts AS p ON p.prompt_id = d.prompt_id
),
exercised AS (
    SELECT pack, rule_id, prompt_id, false AS is_drafted FROM rule_citations
    UNION ALL
    SELECT pack, rule_id, prompt_id, true FROM drafted
),
prompts_of AS (
    SELECT
        pack, rule_id,
        count(DISTINCT prompt_id) AS num_prompts,
        count(DISTINCT prompt_id) FILTER (is_drafted) AS num_drafted
    FROM exercised
    GROUP BY pack, rule_id
),
completions_of AS (
    SELECT
        pack, rule_id,
        count(*) AS num_completions,
        count(*) FILTER (verdict = 'accepted') AS num_accepted
    FROM rule_citations
    GROUP BY pack, rule_id
),
scores_of AS (
    SELECT pack, rule_id, avg(score) AS mean_score, stddev_pop(score) AS score_deviation
    FROM (SELECT pack, rule_id, unnest(scores) AS score FROM rule_citations)
    GROUP BY pack, rule_id
),
grades_of AS (
    SELECT pack, rule_id, count(*) AS num_answers, avg(value) AS mean_grade
    FROM rule_grades
    GROUP BY pack, rule_id
)
SELECT
    pack, rule_id,
    coalesce(num_prompts, 0) AS num_prompts,
    coalesce(num_drafted, 0) AS num_drafted,
    coalesce(num_completions, 0) AS num_completions,
    coalesce(num_accepted, 0) AS num_accepted,
    round(mean_score, 2) AS mean_score,
    round(score_deviation, 2) AS score_deviation,
    coalesce(num_answers, 0) AS num_answers,
    round(mean_grade, 3) AS mean_grade
FROM prompts_of
FULL JOIN completions_of USING (pack, rule_id)
FULL JOIN scores_of USING (pack, rule_id)
FULL JOIN grades_of USING (pack, rule_id);
