-- Functions that queries share. Those that Python has too bear the same names there, and their results
-- are the same.

-- The id of a row made of these parts, a list of texts: null parts are left out.
CREATE MACRO content_id(parts) AS left(sha256(array_to_string(parts, '|')), 32);

-- The key of the spec that these categories are shown.
CREATE MACRO spec_key(categories) AS array_to_string(categories, '+');

-- True if judgement `j` is about completion `c`, which has its prompt and its text: a score that came
-- with a trace is about that trace, and a sample of a judge about all completions of its spec. A trace
-- may have several specs.
CREATE MACRO is_about(j, c) AS CASE
    WHEN j.completion_id IS NULL THEN coalesce(c.spec_id, j.spec_id) = j.spec_id
    ELSE j.completion_id = c.completion_id
END;

-- The rank of a verdict: of several verdicts on one completion, that of the highest rank counts.
CREATE MACRO verdict_rank(verdict) AS list_position(
    ['failed', 'unjudged', 'rejected', 'held', 'accepted'], verdict
);

-- Wilson's 95 % interval of a share of n independent trials; null without trials.
CREATE MACRO wilson(share, n) AS CASE
    WHEN n > 0 THEN struct_pack(
        low := greatest(
            0,
            (share + 1.92073 / n - 1.95996 * sqrt(share * (1 - share) / n + 0.960365 / n / n))
                / (1 + 3.84146 / n)
        ),
        high := least(
            1,
            (share + 1.92073 / n + 1.95996 * sqrt(share * (1 - share) / n + 0.960365 / n / n))
                / (1 + 3.84146 / n)
        )
    )
END;
