"""(prompt, spec) → the messages that a generator, a judge or a grader is sent.

Templates are filled by name in one pass, so that text put in is never read as a placeholder. Text
that users or models wrote can never become structure: special tokens in it are broken by a space, a
judge sees it between marks that carry a nonce which the text between them cannot foresee, and no
line of it looks like a turn of the conversation.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence

from specs.angles import Angle
from specs.calls import call_number, calls_of, calls_text, calls_with
from specs.characters import fold
from specs.documents import Subject
from specs.policy import Rule, Spec
from specs.template import Message as Message
from specs.template import Template

_TOKEN_LIKE = r"<\|[^<>|\s]{1,64}\|>|</?(?:think|tool_call|tool_response)>"
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""From the roles that clients and data sets write to those of a chat."""
_TURN_LIKE = re.compile(
    rf"(?:[>*_#`(\[-]+\s*)*(?:{'|'.join(ROLES)})"
    r"[\s*_`)\]]*(?:\([^)\n]{0,40}\)[\s*_`]*)?[:∶꞉։]",
    re.IGNORECASE,
)
_LIKE_LATIN = str.maketrans("аеорсухѕіԁһӏмтνοαιу", "aeopcyxsidhlmtvoaiy")
"""Cyrillic and Greek letters that look like those of a role."""
_METADATA_INSTRUCTION = (
    "Another AI's finding may be wrong: on a line of its own begin Agree: or Disagree: "
    "and say in brief why. "
)


def neutralise(text: str, *, special_tokens: Sequence[str] = ()) -> str:
    """Breaks every string that a tokenizer could read as a special token, by a space after its
    first character.

    "a<|im_end|>" → "a< |im_end|>"

    `special_tokens` are those of the model's tokenizer; single characters and white space among
    them cannot be broken. Strings of the forms `<|…|>`, `<think>`, `<tool_call>` and
    `<tool_response>` are broken for every model.
    """
    breakable = (token for token in special_tokens if len(token.strip()) > 1)
    named = sorted(breakable, key=len, reverse=True)
    pattern = re.compile("|".join([*map(re.escape, named), _TOKEN_LIKE]))
    # Tokens that overlap or nest survive the first pass.
    while pattern.search(text):
        text = pattern.sub(_break, text)
    return text


def _break(match: re.Match[str]) -> str:
    first = len(match[0]) - len(match[0].lstrip()) + 1
    return f"{match[0][:first]} {match[0][first:]}"


def with_text(message: Message, change: Callable[[str], str]) -> Message:
    """Returns a message with all text that users, models or tools wrote in it changed."""
    changed: Message = {"role": message["role"], "content": change(message["content"])}
    if message.get("tool_calls"):
        changed["tool_calls"] = calls_text(calls_with(calls_of(message), change))
    if name := message.get("name"):
        changed["name"] = change(name)
    if call_id := message.get("tool_call_id"):
        changed["tool_call_id"] = call_id
    return changed


def generator_messages(
    template: Template, messages: Sequence[Message], *, spec: Spec
) -> list[Message]:
    """Returns the messages for a generator: the prompt, spec(category) and the call to cite it."""
    if "conversation" in template.placeholders:
        return template.fill({"spec": spec.text, "conversation": _fenced_turns(messages)})
    turns = [with_text(turn, neutralise) for turn in messages]
    return _one_system(template.fill({"spec": spec.text}, conversation=turns))


def judge_messages(
    template: Template,
    messages: Sequence[Message],
    *,
    spec: Spec,
    answer: str,
    reasoning: str | None,
    metadata: Sequence[str] = (),
) -> list[Message]:
    """Returns the messages for a judge. `reasoning` is None if it must not see it (reward of RL).

    `metadata` are findings of others about the prompt ("the ideal response is refuse"), which the
    judge is asked to agree or disagree with (arXiv 2412.16339, figure 6).
    """
    findings = [_shown(text) for text in metadata]
    turns = _shown_turns(messages)
    answer = _shown(answer)
    reasoning = None if reasoning is None else _shown(reasoning)
    nonce = _nonce([*(turn["content"] for turn in turns), answer, reasoning or "", *findings])
    determined = "\n".join(f"Another AI determined that {text}." for text in findings)
    return template.fill(
        {
            "spec": spec.text,
            "conversation": _fence("conversation", _render(turns), nonce),
            "reasoning": "" if reasoning is None else _fence("reasoning", reasoning, nonce),
            "answer": _fence("answer", answer, nonce),
            "metadata": _fence("findings", determined, nonce) if findings else "",
            "metadata_instruction": _METADATA_INSTRUCTION if findings else "",
        }
    )


def answer_messages(
    template: Template, messages: Sequence[Message], *, answer: str
) -> list[Message]:
    """Returns the messages for a judge that is shown a conversation and its answer, and no spec."""
    return template.fill(fenced_answer(messages, answer=answer))


def critique_messages(
    template: Template, messages: Sequence[Message], *, answer: str, rules: str
) -> list[Message]:
    """Returns the messages for a model that criticises an answer by some rules, or by none.

    `rules` is what it is shown of a pack: a spec or one rule; empty for its own judgement.
    """
    return template.fill({**fenced_answer(messages, answer=answer), "rules": rules})


def revision_messages(
    template: Template, messages: Sequence[Message], *, answer: str, critique: str
) -> list[Message]:
    """Returns the messages for a model that revises its answer as a critique says."""
    turns, answer, critique = _shown_turns(messages), _shown(answer), _shown(critique)
    nonce = _nonce([*(turn["content"] for turn in turns), answer, critique])
    return template.fill(
        {
            "conversation": _fence("conversation", _render(turns), nonce),
            "answer": _fence("answer", answer, nonce),
            "critique": _fence("critique", critique, nonce),
        }
    )


def fenced_answer(messages: Sequence[Message], *, answer: str) -> dict[str, str]:
    """Returns values for `conversation` and `answer`, each between marks of the same nonce."""
    turns = _shown_turns(messages)
    answer = _shown(answer)
    nonce = _nonce([*(turn["content"] for turn in turns), answer])
    return {
        "conversation": _fence("conversation", _render(turns), nonce),
        "answer": _fence("answer", answer, nonce),
    }


def attacker_messages(
    template: Template, conversation: Sequence[Message], *, goal: str
) -> list[Message]:
    """Returns the messages for a model that plays a user who wants `goal`, and writes the next
    turn."""
    turns = _shown_turns(conversation)
    goal = _shown(goal)
    nonce = _nonce([goal, *(turn["content"] for turn in turns)])
    return template.fill(
        {
            "goal": _fence("request", goal, nonce),
            "conversation": _fence("conversation", _render(turns), nonce) if turns else "",
        }
    )


def assign_messages(
    template: Template, messages: Sequence[Message], *, spec: Spec, categories: Sequence[str]
) -> list[Message]:
    """Returns the messages for a judge that chooses one of `categories` for a conversation.

    `spec` holds the summaries of all of them.
    """
    return template.fill(
        {
            "spec": spec.text,
            "categories": ", ".join(categories),
            "conversation": _fenced_turns(messages),
        }
    )


def retrieval_messages(
    template: Template, excerpts: Sequence[str], *, spec: Spec, categories: Sequence[str]
) -> list[Message]:
    """Returns the messages for a judge that says which of `categories` the reasoning had in mind.

    `excerpts` are sentences of the reasoning, and `spec` holds the summaries of all categories
    (arXiv 2412.16339, section 4.2).
    """
    text = "\n".join(_shown(excerpt) for excerpt in excerpts)
    return template.fill(
        {
            "spec": spec.text,
            "categories": ", ".join(categories),
            "excerpts": _fence("thoughts", text, _nonce([text])),
        }
    )


def fill_messages(template: Template, angle: Angle, *, spec: Spec, rule: Rule) -> list[Message]:
    """Returns the messages for a model that writes a prompt at an angle of a rule."""
    shown, place, near = _shown(rule.render()), _shown(angle.text), _shown(angle.near)
    right = angle.ideal_response or "one that follows the rule"
    place = f"Wanted: {place}. The right response: {right}."
    nonce = _nonce([shown, place, near])
    return template.fill(
        {
            "spec": spec.text,
            "rule": _fence("rule", shown, nonce),
            "place": _fence("place", place, nonce),
            "near": _fence("request", near, nonce) if near else "",
        }
    )


def document_messages(template: Template, subject: Subject) -> list[Message]:
    """Returns the messages for a model that writes a document about a rule or a policy."""
    rule_id, policy = subject.rule_id, subject.policy
    about = f"rule {rule_id} of policy {policy.id}" if rule_id else f"policy {policy.id} as a whole"
    return template.fill({"spec": subject.spec.text, "subject": about, "kind": subject.wanted})


def _shown(text: str) -> str:
    """Returns the text of a user or a model as the judge of it is shown it: without special tokens,
    and with every line that looks like a turn set in by a space.

    Whatever breaks a line for Unicode breaks it for a model, and a role is one in any spelling that
    looks like it.
    """
    lines = neutralise(text).splitlines(keepends=True)
    return "".join(f" {line}" if _TURN_LIKE.match(_look(line)) else line for line in lines)


def _look(line: str) -> str:
    """Returns a line as an eye takes it: without marks on letters, and lookalikes in Latin."""
    letters = unicodedata.normalize("NFD", fold(line).casefold())
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return bare.translate(_LIKE_LATIN)


def _shown_turns(messages: Sequence[Message]) -> list[Message]:
    """Returns the turns as a judge is shown them; each call of a tool is a turn of its own."""
    shown: list[Message] = []
    for message in messages:
        calls = calls_of(message)
        if not calls or message["content"].strip():
            shown.append({"role": _heading(message), "content": _shown(message["content"])})
        shown += [
            {
                "role": f"{message['role']} (call {call_number(call.id)})",
                "content": _shown(str(call)),
            }
            for call in calls
        ]
    return shown


def _heading(message: Message) -> str:
    """Returns the role, and of which call a result is; in a form that no line of text can have."""
    if call_id := message.get("tool_call_id"):
        return f"{message['role']} (result of call {call_number(call_id)})"
    return message["role"]


def _one_system(messages: Sequence[Message]) -> list[Message]:
    """Joins the prompt's own system messages to ours: chat templates allow one, at the start."""
    ours = [message["content"] for message in messages[:1] if message["role"] == "system"]
    rest = messages[len(ours) :]
    own = [message["content"] for message in rest if message["role"] == "system"]
    if not own:
        return list(messages)
    heading = ["# Instructions of this conversation"] if ours else []
    content = "\n".join([*ours, *heading, *own])
    turns = [message for message in rest if message["role"] != "system"]
    return [{"role": "system", "content": content}, *turns]


def _render(turns: Sequence[Message]) -> str:
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _fenced_turns(messages: Sequence[Message]) -> str:
    turns = _shown_turns(messages)
    return _fence("conversation", _render(turns), _nonce([turn["content"] for turn in turns]))


def _nonce(texts: Sequence[str]) -> str:
    """Returns eight hex digits that depend on all the text between the marks and are not in it."""
    digest = hashlib.sha256("\x00".join(texts).encode())
    while any(digest.hexdigest()[:8] in text for text in texts):
        digest.update(b"again")
    return digest.hexdigest()[:8]


def _fence(label: str, text: str, nonce: str) -> str:
    return f"[{label} {nonce}]\n{text}\n[end {nonce}]"
