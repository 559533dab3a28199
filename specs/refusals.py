"""A judge's answer → whether the judge declines to judge.

A refusal counts if it begins a sentence of the judge's own. One that stands in quotes, in code or
in a quoted line is the answer that is judged, and judges quote refusals all the time.
"""

import re

from specs.characters import fold

_QUOTED = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|``.*?(?:''|``)|`[^`\n]*`"
    r"|^[ \t]*>.*$"
    r"|“[^”]*(?:”|\Z)|„[^“”]*[“”]|«[^»]*»|‹[^›]*›|「[^」]*」|『[^』]*』|＂[^＂]*＂"
    r'|(?<!\w)"(?=\S)(?:[^"]*"|[^"]*?(?=\n\s*\n|\Z))'
    # An apostrophe within a word closes nothing.
    r"|(?<!\w)‘(?:[^‘’]|’(?=\w))*’"
    r"|(?<!\w)'(?=\S)(?:[^'\n]|(?<=\w)'(?=\w))*'(?!\w)",
    re.DOTALL | re.MULTILINE,
)
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘‛ʼ＇′´`", "'"))
_SENTENCE_END = re.compile(r"(?<=[.!?。])[*_]*\s+|\n+")
_SIGNS = " \t*_>#-•([{"
_VERBS = (
    r"(?:answer|assess|assist|comment|comply|continue|discuss|do|engage|evaluate|fulfill?"
    r"|give (?:an? |any )?(?:answer|assessment|grade|judge?ment|opinion|rating|score|verdict)"
    r"|grade|help(?! but)|judge|offer|participate|proceed|provide|rate|review|score)\b"
)
_LEAD = (
    r"(?:(?:unfortunately|regrettably|sorry|apologies|my apologies|however|but|so|therefore"
    r"|I apologi[sz]e(?: for [\w ]{1,40})?|as an? [\w -]{1,40}|for (?:this|that) reason)"
    r"[,;:.—–-]* +)*"
)
_DECLINES = re.compile(
    rf"{_LEAD}(?:(?:I'm|I am) sorry\b|I won't(?: {_VERBS}|[.!]|$)|I will not {_VERBS}"
    r"|I (?:(?:must )?decline|(?:have to|must) refuse|refuse to)\b"
    rf"|(?:(?:I'm|I am) afraid (?:that )?)?I (?:can't|cannot|can not) {_VERBS}"
    rf"|(?:I'm|I am) (?:unable|not able|unwilling) to {_VERBS})",
    re.IGNORECASE,
)


def declines(answer: str) -> bool:
    """Returns True if a judge's answer without a verdict says that it will not or cannot judge.

    "I’m sorry, but I can’t rate this." → True
    "It says “I’m sorry, but I can’t help”, as K3 wants." → False
    """
    own_words = unquoted(answer)
    sentences = (
        fold(sentence.translate(_APOSTROPHES)).lstrip(_SIGNS)
        for sentence in _SENTENCE_END.split(own_words)
    )
    return any(_DECLINES.match(sentence) for sentence in sentences)


def unquoted(answer: str) -> str:
    """Returns an answer with a gap for whatever it quotes."""
    return _QUOTED.sub(_gap, answer)


def _gap(match: re.Match[str]) -> str:
    """Returns a stand-in for a quote, which ends a sentence where the quote does."""
    end = match[0].rstrip("\"'”’»›」』＂`")[-1:]
    return "…" + end if end in (".", "!", "?") else "…"
