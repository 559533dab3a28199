-- The turns of chats without calls of tools.
CREATE OR REPLACE TEMP MACRO turns(messages) AS
    list_transform(messages, lambda turn: {role: turn.role, content: turn.content});
