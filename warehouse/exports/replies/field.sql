-- A reply as a turn, its reasoning under the key that most chat templates read.
CREATE OR REPLACE TEMP MACRO reply(reasoning, answer) AS
    {role: 'assistant', content: answer, reasoning_content: reasoning};
