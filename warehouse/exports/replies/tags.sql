-- A reply as a turn, its reasoning between tags before the answer.
CREATE OR REPLACE TEMP MACRO reply(reasoning, answer) AS
    {role: 'assistant', content: tagged(reasoning, answer)};
