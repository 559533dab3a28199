-- The same with numbers for ids, by which tables are joined faster.
CREATE OR REPLACE TEMP VIEW completions AS
SELECT * EXCLUDE (number, prompt_number) REPLACE (number AS completion_id, prompt_number AS prompt_id)
FROM app.completions SEMI JOIN chosen USING (number);

CREATE OR REPLACE TEMP VIEW verdicts AS
SELECT * EXCLUDE (number) REPLACE (number AS completion_id)
FROM app.verdicts SEMI JOIN chosen USING (number);

CREATE OR REPLACE TEMP VIEW votes AS
SELECT * EXCLUDE (number) REPLACE (number AS completion_id)
FROM app.votes SEMI JOIN chosen USING (number);

CREATE OR REPLACE TEMP VIEW prompts AS
SELECT * EXCLUDE (prompt_number) REPLACE (prompt_number AS prompt_id) FROM app.prompts_all;

CREATE OR REPLACE TEMP VIEW judge_spreads AS
SELECT * EXCLUDE (number) REPLACE (number AS completion_id)
FROM app.judge_spreads SEMI JOIN chosen USING (number);

CREATE OR REPLACE TEMP VIEW jury_votes AS
SELECT * EXCLUDE (number) REPLACE (number AS completion_id)
FROM app.jury_votes SEMI JOIN chosen USING (number);
