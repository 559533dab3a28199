-- What each session has of its own: the completions that its filters leave, and those that a search
-- found; and views that hide those of the catalog.
CREATE TEMP TABLE chosen AS SELECT number FROM app.rows;

CREATE TEMP TABLE found (number INTEGER);

CREATE TEMP VIEW chosen_rows AS FROM app.rows SEMI JOIN chosen USING (number);

CREATE TEMP VIEW completions_all AS SELECT * EXCLUDE (number, prompt_number) FROM app.completions;

CREATE TEMP VIEW prompts_all AS SELECT * EXCLUDE (prompt_number) FROM app.prompts_all;

CREATE TEMP VIEW category_drift AS FROM app.category_drift;
