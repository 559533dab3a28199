-- The turns of chats with calls of tools, as the OpenAI API and chat templates name them.
CREATE OR REPLACE TEMP MACRO turns(messages) AS list_transform(
    messages,
    lambda turn: {
        role: turn.role,
        content: turn.content,
        tool_calls: list_transform(
            from_json(
                turn.tool_calls, '[{"id": "VARCHAR", "name": "VARCHAR", "arguments": "JSON"}]'
            ),
            lambda call: {
                id: call.id,
                type: 'function',
                function: {name: call.name, arguments: call.arguments::VARCHAR}
            }
        ),
        tool_call_id: turn.tool_call_id,
        name: turn.name
    }
);
