-- The chosen completions and what belongs to them, by their ids.
CREATE OR REPLACE TEMP VIEW completions AS
SELECT * EXCLUDE (number, prompt_number) FROM app.completions SEMI JOIN chosen USING (number);

CREATE OR REPLACE TEMP VIEW verdicts AS
SELECT * EXCLUDE (number) FROM app.verdicts SEMI JOIN chosen USING (number);

CREATE OR REPLACE TEMP VIEW votes AS
SELECT * EXCLUDE (number) FROM app.votes SEMI JOIN chosen USING (number);

CREATE OR REPLACE TEMP VIEW prompts AS SELECT * EXCLUDE (prompt_number) FROM app.prompts_all;

CREATE OR REPLACE TEMP VIEW judge_spreads AS
SELECT * EXCLUDE (number)
FROM app.judge_spreads SEMI JOIN chosen USING (number);

CREATE OR REPLACE TEMP VIEW jury_votes AS
SELECT * EXCLUDE (number)
FROM app.jury_votes SEMI JOIN chosen USING (number);
