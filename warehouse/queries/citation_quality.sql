-- Rules and quotes in the reasoning of each model, by the spec in its prompt and by category: of
-- completions, and of answers to bare requests in the current evaluation. Counts those that cite rules,
-- those that cite such as no rule is, and excerpts of four words or more in quotation marks (of Chinese,
-- Japanese and other scripts without spaces, four characters). A quote is of a rule if the rule has its
-- words, or at least half of its pairs of neighbouring words. Others may be of the rest of the spec, or
-- of the request or the answer; what is left is invented.
WITH reasoned AS (
    SELECT
        c.completion_id AS row_id, c.prompt_id, NULL AS case_id, c.model, 'category' AS context,
        p.categories, c.cited, c.cited_unknown, c.reasoning, c.answer,
        -- A trace may have several specs; any of one pack has the rules of its categories.
        coalesce(c.spec_id, t.spec_id) AS spec_id
    FROM completions AS c
    JOIN (SELECT prompt_id, categories FROM prompts_all) AS p USING (prompt_id)
    LEFT JOIN (SELECT completion_id, min(spec_id) AS spec_id FROM trace_specs GROUP BY ALL) AS t
        USING (completion_id)
    WHERE c.reasoning <> ''
    UNION ALL
    SELECT DISTINCT ON (c.answer_id)
        c.answer_id, c.prompt_id, c.case_id, a.model, c.context, c.categories, a.cited,
        a.cited_unknown, a.reasoning, a.answer, c.full_spec_id
    FROM cells AS c
    JOIN answers AS a USING (answer_id)
    WHERE c.attack = 'none' AND c.probe = 'none' AND a.reasoning <> ''
),
-- Quotes of any length, as one that was passed over would leave its closing mark to open another. A mark
-- without a direction pairs with the next on its line; an apostrophe within a word closes nothing.
excerpts AS (
    SELECT
        row_id, spec_id, cited,
        unnest(list_distinct(list_concat(
            regexp_extract_all(reasoning, '"([^"\n]*)"', 1),
            regexp_extract_all(reasoning, '[“”„]([^“”„]*)[“”]', 1),
            regexp_extract_all(reasoning, '[«»‹›]([^«»‹›]*)[«»‹›]', 1),
            regexp_extract_all(reasoning, '[「『]([^「」『』]*)[」』]', 1),
            regexp_extract_all(reasoning, '[‘‚]((?:[^‘’‚]|’\p{L})*)[’‘]', 1),
            regexp_extract_all(reasoning, '(?m)(?:^|[\s(])''((?:[^''\n]|''\p{L})*)''', 1)
        ))) AS excerpt
    FROM reasoned
),
quotes AS (
    SELECT DISTINCT row_id, spec_id, cited, words_of(excerpt) AS words
    FROM excerpts
    WHERE len(string_split(words, ' ')) >= 4
),
specs_shown AS MATERIALIZED (
    SELECT spec_id, text, ' ' || words_of(text) || ' ' AS words
    FROM specs_all
    WHERE spec_id IN (SELECT spec_id FROM reasoned)
),
-- A rule goes on in the lines that are set in below it.
rule_parts AS (
    SELECT
        spec_id,
        unnest(regexp_extract_all(
            text, '(?m)^- [^\n]*\[[A-Z]{1,3}[0-9]{1,2}, [^\]\n]*\]: [^\n]*(?:\n(?:  [^\n]*)?)*'
        )) AS rule_text
    FROM specs_shown
),
rules AS MATERIALIZED (
    SELECT
        spec_id,
        regexp_extract(rule_text, '\[([A-Z]{1,3}[0-9]{1,2}), ', 1) AS rule_id,
        ' ' || words_of(rule_text) || ' ' AS words,
        string_split(trim(words), ' ') AS word_list
    FROM rule_parts
),
rule_pairs AS (
    SELECT DISTINCT
        spec_id, rule_id,
        unnest(list_transform(
            range(1, len(word_list)), lambda i: word_list[i] || ' ' || word_list[i + 1]
        )) AS pair
    FROM rules
),
different AS MATERIALIZED (
    SELECT DISTINCT spec_id, words, string_split(words, ' ') AS word_list
    FROM quotes
),
quote_pairs AS (
    SELECT
        spec_id, words, len(word_list) - 1 AS num_pairs,
        unnest(list_transform(
            range(1, len(word_list)), lambda i: word_list[i] || ' ' || word_list[i + 1]
        )) AS pair
    FROM different
),
alike AS (
    SELECT q.spec_id, q.words, r.rule_id
    FROM quote_pairs AS q
    JOIN rule_pairs AS r USING (spec_id, pair)
    GROUP BY q.spec_id, q.words, q.num_pairs, r.rule_id
    HAVING count(*) >= 0.5 * q.num_pairs
),
matched AS MATERIALIZED (
    SELECT
        a.spec_id, a.words,
        list(a.rule_id) AS rule_ids,
        list(a.rule_id) FILTER (contains(r.words, ' ' || a.words || ' ')) AS verbatim_ids
    FROM alike AS a
    JOIN rules AS r USING (spec_id, rule_id)
    GROUP BY a.spec_id, a.words
),
unmatched AS (
    SELECT q.row_id, q.words, q.spec_id
    FROM quotes AS q
    ANTI JOIN matched AS m USING (spec_id, words)
),
cases_once AS (
    SELECT case_id, any_value(messages) AS messages
    FROM cases
    GROUP BY case_id
),
said AS (
    SELECT
        u.row_id, u.words, s.words AS spec_words,
        [turn.content for turn in coalesce(k.messages, p.messages)] AS contents,
        c.answer
    FROM unmatched AS u
    JOIN specs_shown AS s USING (spec_id)
    JOIN reasoned AS c USING (row_id)
    LEFT JOIN cases_once AS k USING (case_id)
    LEFT JOIN prompts_all AS p ON p.prompt_id = c.prompt_id AND c.case_id IS NULL
),
elsewhere AS (
    SELECT
        row_id, words,
        contains(spec_words, ' ' || words || ' ') AS is_of_spec,
        contains(
            ' ' || words_of(concat_ws(' ', array_to_string(contents, ' '), answer)) || ' ',
            ' ' || words || ' '
        ) AS is_of_chat
    FROM said
),
sorted AS (
    SELECT
        q.row_id,
        CASE
            WHEN m.words IS NULL AND e.is_of_spec THEN 'of_spec'
            WHEN m.words IS NULL AND e.is_of_chat THEN 'of_chat'
            WHEN m.words IS NULL THEN 'invented'
            WHEN NOT list_has_any(m.rule_ids, q.cited) THEN 'of_uncited'
            WHEN list_has_any(coalesce(m.verbatim_ids, []), q.cited) THEN 'verbatim'
            ELSE 'near'
        END AS kind
    FROM quotes AS q
    LEFT JOIN matched AS m USING (spec_id, words)
    LEFT JOIN elsewhere AS e USING (row_id, words)
),
counted AS (
    SELECT
        row_id,
        count(*) AS num_quotes,
        count(*) FILTER (kind = 'verbatim') AS num_verbatim,
        count(*) FILTER (kind = 'near') AS num_near,
        count(*) FILTER (kind = 'of_uncited') AS num_of_uncited,
        count(*) FILTER (kind = 'of_spec') AS num_of_spec,
        count(*) FILTER (kind = 'of_chat') AS num_of_chat,
        count(*) FILTER (kind = 'invented') AS num_invented
    FROM sorted
    GROUP BY row_id
)
SELECT
    c.model,
    c.context,
    spec_key(c.categories) AS category,
    count(*) AS num_rows,
    count(*) FILTER (len(c.cited) > 0) AS num_citing,
    count(*) FILTER (len(c.cited_unknown) > 0) AS num_citing_invented_rules,
    coalesce(sum(k.num_quotes), 0)::BIGINT AS num_quotes,
    coalesce(sum(k.num_verbatim), 0)::BIGINT AS num_verbatim,
    coalesce(sum(k.num_near), 0)::BIGINT AS num_near,
    coalesce(sum(k.num_of_uncited), 0)::BIGINT AS num_of_uncited_rules,
    coalesce(sum(k.num_of_spec), 0)::BIGINT AS num_of_rest_of_spec,
    coalesce(sum(k.num_of_chat), 0)::BIGINT AS num_of_chat,
    coalesce(sum(k.num_invented), 0)::BIGINT AS num_invented
FROM reasoned AS c
LEFT JOIN counted AS k USING (row_id)
GROUP BY c.model, c.context, category
ORDER BY c.model, c.context, category;
