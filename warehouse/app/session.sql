-- The views of a session: the questions of the catalog, asked through them, are about the completions
-- that the filters leave in table `chosen`.
CREATE TEMP TABLE chosen AS SELECT number FROM app.rows;

CREATE TEMP TABLE found (number INTEGER);

CREATE TEMP VIEW completions AS
SELECT * EXCLUDE (number) FROM app.completions SEMI JOIN chosen USING (number);

CREATE TEMP VIEW verdicts AS
SELECT * EXCLUDE (number) FROM app.verdicts SEMI JOIN chosen USING (number);

CREATE TEMP VIEW votes AS
SELECT * EXCLUDE (number) FROM app.votes SEMI JOIN chosen USING (number);

CREATE TEMP VIEW completions_all AS SELECT * EXCLUDE (number) FROM app.completions;

CREATE TEMP VIEW prompts_all AS FROM app.prompts_all;

CREATE TEMP VIEW prompts AS FROM app.prompts_all;

CREATE TEMP VIEW category_drift AS FROM app.category_drift;

CREATE TEMP VIEW chosen_rows AS FROM app.rows SEMI JOIN chosen USING (number);
