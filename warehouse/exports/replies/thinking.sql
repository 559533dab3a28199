-- A reply as a turn, its reasoning under the key that templates of the gpt-oss family read.
CREATE OR REPLACE TEMP MACRO reply(reasoning, answer) AS
    {role: 'assistant', content: answer, thinking: reasoning};
