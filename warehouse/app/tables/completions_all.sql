-- Every completion once, without its texts.
SELECT * EXCLUDE (answer, reasoning) FROM memory.main.completions_all;
