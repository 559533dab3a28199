"""vLLM's reasoning parsers by name → the marks of a family, or why no reply can be split by it.

The marks split every reply by the rule of `specs.replies`. vLLM's parser serves inside the engine
alone: it says where reasoning ends, for structured outputs and for limits of reasoning.
"""

import difflib
import re
from collections.abc import Collection, Mapping

from specs.replies import CLOSE_TAG, OPEN_TAG, THINK, Marks

_EFFORTS = {"high": "think", "medium": "think_fast", "low": "think_faster"}
"""The names of the tags of K2 Horizon, by reasoning_effort."""

FAMILIES: Mapping[str, Marks] = {
    **dict.fromkeys(
        (
            "deepseek_r1",
            "deepseek_v3",
            "deepseek_v4",
            "deepseek_v41",
            "glm45",
            "glm47",
            "granite_thinking_parser",
            "holo2",
            "hy_v3",
            "hy_v4",
            "kimi_k2",
            "ling3",
            "mimo",
            "minimax_m2",
            "nemotron_v3",
            "olmo3",
            "poolside_v1",
            "qwen3",
            "step3",
            "step3p5",
        ),
        THINK,
    ),
    "ernie45": Marks(OPEN_TAG, CLOSE_TAG, around_answer=("<response>", "</response>")),
    "gemma4": Marks("<|channel>thought\n", "<channel|>", strays=("<|channel>",)),
    "k2_horizon": Marks(
        "<ifm|think>",
        "</ifm|think>",
        strays=tuple(f"{start}ifm|{name}>" for name in _EFFORTS.values() for start in ("<", "</")),
    ),
    "minimax_m3": Marks("<mm:think>", "</mm:think>"),
    "mistral": Marks("[THINK]", "[/THINK]"),
    "seed_oss": Marks("<seed:think>", "</seed:think>"),
}
"""The marks of each family whose replies can be split."""

REFUSED = (
    "cohere_command3",
    "cohere_command4",
    "granite",
    "hunyuan_a13b",
    "inkling",
    "kimi_k3",
    "minimax_m2_append_think",
    "muse_glimmer",
    "openai_gptoss",
)
"""vLLM's other parsers: they read text or a stream, or put further marks around the answer."""

IN_VOCABULARY = ("hy_v3", "hy_v4")
"""Families of which each model has marks of its own, that only its tokens tell."""
_IN_TEXT = ("olmo3",)
"""Families whose marks are text, in several tokens."""
_TOKEN = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")
_THINK_IN_VOCABULARY = re.compile(r"<think:[^\s<>]+>")


def check_parser(name: str) -> None:
    """Raises ValueError if vLLM has no such parser, or replies cannot be split by it."""
    if name in FAMILIES:
        return
    choice = f"use one of {', '.join(sorted(FAMILIES))}; or leave it unset for {OPEN_TAG} tags"
    if name in REFUSED:
        raise ValueError(
            f"vLLM's parser {name!r} cannot tell which tokens are the answer; {choice}"
        )
    close = difflib.get_close_matches(name, FAMILIES, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"vLLM has no reasoning parser {name!r}; {hint}{choice}")


def marks_of(
    name: str | None,
    *,
    chat_template_kwargs: Mapping[str, bool | str] = {},
    vocabulary: Collection[str] = (),
) -> Marks:
    """Returns the marks of a family; those of <think> tags without a name.

    Some families choose theirs by an option of the chat template, or have them in the model's
    `vocabulary` alone. Raises ValueError if the family has none for that option.
    """
    if name is None:
        return THINK
    if name == "k2_horizon":
        effort = chat_template_kwargs.get("reasoning_effort", "high")
        if effort not in _EFFORTS:
            raise ValueError(
                f"chat_template_kwargs.reasoning_effort is {effort!r}, for which k2_horizon has no "
                f"marks: use one of {', '.join(_EFFORTS)}"
            )
        tag = f"ifm|{_EFFORTS[str(effort)]}"
        return Marks(f"<{tag}>", f"</{tag}>", strays=FAMILIES[name].strays)
    if name in IN_VOCABULARY:
        for token in sorted(vocabulary):
            if _THINK_IN_VOCABULARY.fullmatch(token):
                return Marks(token, f"</{token[1:]}")
    return FAMILIES[name]


def require_marks(name: str | None, marks: Marks, vocabulary: Collection[str]) -> None:
    """Raises ValueError if a family's marks are no tokens of a model, where vLLM looks for them.

    Text that follows a token in a mark, as the name of a channel, is left out.
    """
    if name is None or name in _IN_TEXT:
        return
    tokens = (_TOKEN.match(mark) for mark in (marks.opening, marks.closing))
    missing = next((token[0] for token in tokens if token and token[0] not in vocabulary), None)
    if missing:
        raise ValueError(
            f"reasoning_parser {name!r} looks for token {missing!r}, which the model's tokenizer "
            "does not have; use the parser of the model's family, or leave it unset for "
            f"{OPEN_TAG} tags"
        )
