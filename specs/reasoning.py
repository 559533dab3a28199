"""Reasoning → the rules it cites, the outcome it decides on, the phrases that dangle.

Everything is read from the words alone, without a model, and errs on the side of nothing: a
decision that is hedged, denied or hypothetical is no decision.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Citations:
    """The rule ids that reasoning names, in order of first mention."""

    known: tuple[str, ...]
    """Ids of rules that exist."""
    unknown: tuple[str, ...]
    """Ids that no rule has."""


_RULE_ID = re.compile(r"(?P<cue>\b(?i:rules?|policy) |\[)?\b(?P<id>[A-Za-z]{1,3}\d{1,2})\b")


def find_citations(reasoning: str, *, rule_ids: Sequence[str]) -> Citations:
    """Returns the rules that reasoning cites, of a pack with these ids.

    An id that no rule has counts as a citation if its letters are those of a real rule, or if it is
    introduced as one ("rule X9", "[X9"): "vitamin B12" is one only if the pack has rules B…. In
    small letters only the id of a real rule counts, and only if it is introduced so.
    """
    real = set(rule_ids)
    prefixes = {rule_id.rstrip("0123456789") for rule_id in real}
    cited: dict[str, None] = {}
    invented: dict[str, None] = {}
    for match in _RULE_ID.finditer(reasoning):
        rule_id = match["id"]
        if match["cue"] and rule_id.upper() in real:
            rule_id = rule_id.upper()
        if rule_id in real:
            cited[rule_id] = None
        elif not rule_id.isupper():
            continue
        elif match["cue"] or rule_id.rstrip("0123456789") in prefixes:
            invented[rule_id] = None
    return Citations(tuple(cited), tuple(invented))


def citation_marks(
    text: str, *, known: Sequence[str], unknown: Sequence[str]
) -> list[tuple[str, bool | None]]:
    """Returns a text in pieces: True stands beside a citation of a known rule, False beside one of
    an id that no rule has, None beside all other text."""
    pieces: list[tuple[str, bool | None]] = []
    end = 0
    for match in _RULE_ID.finditer(text):
        rule_id = match["id"].upper() if match["cue"] else match["id"]
        if rule_id not in known and rule_id not in unknown:
            continue
        pieces.append((text[end : match.start("id")], None))
        pieces.append((match["id"], rule_id in known))
        end = match.end("id")
    return [*pieces, (text[end:], None)]


_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)\s+|(?<=[.!?][\"')”])\s+|\n+", re.IGNORECASE
)
_POLICY_WORD = re.compile(r"\b(?:policy|policies|guidelines?|allowed)\b", re.IGNORECASE)


def policy_excerpts(reasoning: str) -> list[str]:
    """Returns the sentences of reasoning that speak of policies, guidelines or what is allowed.

    They tell which policy a model had in mind (arXiv 2412.16339, footnote 2).
    """
    sentences = map(str.strip, _SENTENCE_END.split(reasoning))
    return [sentence for sentence in sentences if _POLICY_WORD.search(sentence)]


_MENTION = re.compile(
    r"\b(?:(?P<refuse>refus(?:e|ed|ing|al)(?: to comply)?|declin(?:e|ed|ing))"
    r"|(?P<safe_complete>safe[-_ ]complet(?:e|ed|ing|ion))"
    r"|(?P<comply>compl(?:y|ied|ying)))\b"
    # A mention that is one of a list, on a condition, or denied is no decision.
    r"(?!(?:,? or|,|/) *(?:to )?(?:comply|refuse|decline|safe)| (?:only )?(?:if|unless|when)\b"
    r"| (?:is|would|will)(?:n't| not)\b)",
    re.IGNORECASE,
)
_COMPLIANCE_WITH_RULES = re.compile(
    r"\bcomply(?:ing)? with (?:[\w']+ ){0,6}?"
    r"(?:polic|rule|guideline|law|spec|standard|style|principle)\w*(?:,? (?:and|by)\b)?",
    re.IGNORECASE,
)
_HYPOTHESIS = re.compile(r"\W*(?:if|unless|had|were|suppose)\b", re.IGNORECASE)
_DOUBT = re.compile(
    r"(?:\b(?:whether|why|if|unless|no reason)|(?:\bnot|n't) (?:think|believe|see))"
    r"(?: that| why)?\W*$",
    re.IGNORECASE,
)
_IMPERATIVE = re.compile(
    r"\W*$|\W* (?:politely|briefly|gently|plainly|with|and|without)\b", re.IGNORECASE
)
_WORD = re.compile(r"[\w']+|→|->|=>")
_WINDOW = 200
"""Characters read before a mention. Without a bound, text that repeats itself takes quadratic
time."""


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


_DECIDERS = _words("i we i'm i'll i've we're we'll we've let's assistant ai")
_THEREFORE = _words("so thus hence therefore consequently accordingly → -> =>")
_CALLING_FOR = _words("call calls require requires warrant warrants demand demands means")
_DECISION_NAMES = _words(
    "decision outcome verdict conclusion answer response reply action choice course thing approach "
    "plan best better right safest proper"
)
_NEGATIONS = _words("not cannot never unable can't won't mustn't shouldn't don't doesn't isn't")
_AUXILIARIES = _words("must should shall will has have need needs cannot can't is are")
_WEAKENERS = _words("fully completely entirely simply just only have need needs required obliged")
"""Words that leave open what is denied: "not fully", "not have to"."""
_SMALL_WORDS = _words(
    "am be do does can may able ought going to me us here now but decide decided choose conclude "
    "give offer provide write respond by with for a an the short brief polite plain warm gentle "
    "kind still also clearly safely politely briefly gently let"
)
_BRIDGE_WORDS = (
    _DECIDERS
    | _THEREFORE
    | _CALLING_FOR
    | _DECISION_NAMES
    | _NEGATIONS
    | _AUXILIARIES
    | _WEAKENERS
    | _SMALL_WORDS
)
"""Words that may stand between an outcome and its decider or cause."""


def find_decision(reasoning: str) -> str | None:
    """Returns the outcome that reasoning settles on: `comply`, `refuse`, `safe_complete` or None.

    "Theft [K3, refuse] is not asked for. I should not refuse, so I comply." → "comply"

    The last decision counts. A word for an outcome is a decision if somebody decides on it ("I
    must"), if it follows from something ("so", "requires"), or if it is called one ("the right
    response is"), with only small words between. Not to comply is to refuse; not to refuse leaves
    two outcomes, and is no decision.
    """
    sentences = _SENTENCE_END.split(reasoning.replace("’", "'").replace(";", "\n"))
    for sentence in reversed(sentences):
        if _HYPOTHESIS.match(sentence) or sentence.rstrip().endswith("?"):
            continue
        sentence = _COMPLIANCE_WITH_RULES.sub(" ", sentence.strip())
        for mention in reversed(list(_MENTION.finditer(sentence))):
            decision = _decided(sentence, mention)
            if decision:
                return decision
    return None


def _decided(sentence: str, mention: re.Match[str]) -> str | None:
    """Returns the outcome that a mention decides on, by the words before it, or None."""
    before = _bridge_before(sentence, mention)
    words = set(before)
    form = mention[0].lower()
    if form.endswith("ed"):
        decides = "be" in words and bool(words & _AUXILIARIES)
    elif form.endswith("ing"):
        decides = bool(words & (_DECIDERS | _CALLING_FOR))
    else:
        decides = bool(words & (_DECIDERS | _THEREFORE | _CALLING_FOR | _DECISION_NAMES))
    num_negations = sum(word in _NEGATIONS for word in before)
    if not decides or (num_negations and words & _WEAKENERS):
        return None
    if num_negations:
        return "refuse" if mention.lastgroup == "comply" and num_negations == 1 else None
    return mention.lastgroup


def _bridge_before(sentence: str, mention: re.Match[str]) -> list[str]:
    """Returns the bridge words before a mention, nearest first, as far as its decider or cause.

    "I must" → ["must", "i"]; a sentence that opens with a command gets "so" for a cause; if the
    decider is in doubt ("whether I should"), the list is empty.
    """
    start = max(0, mention.start() - _WINDOW)
    before: list[str] = []
    for match in reversed(list(_WORD.finditer(sentence, start, mention.start()))):
        word = match[0].lower()
        if word not in _BRIDGE_WORDS:
            return before
        before.append(word)
        if word in _DECIDERS | _THEREFORE:
            return [] if _DOUBT.search(sentence, start, match.start()) else before
    if start == 0 and _IMPERATIVE.match(sentence, mention.end()):
        before.append("so")
    return before


_SPEC_NAME = r"(?:policy|policies|rules?|guidelines?|instructions?|spec|specification|text|prompt)"
_DANGLING = re.compile(
    rf"\b{_SPEC_NAME} (?:above|below|provided|given|supplied|listed|shown|quoted)\b"
    # "Following rule K3" names its source, so it does not dangle.
    rf"|\b(?:above|below|provided|given|supplied|aforementioned|following) {_SPEC_NAME}\b"
    r"(?! [A-Z]{1,3}\d)"
    rf"|\b{_SPEC_NAME} (?:that )?(?:I|we) (?:was|were|have been|am|are) (?:given|shown|provided)\b"
    r"|\b(?:as|like) (?:stated|mentioned|described|listed|noted) (?:above|below)\b",
    re.IGNORECASE,
)
_SYSTEM_MESSAGE = re.compile(r"\b(?:system|developer) (?:prompt|message)\b", re.IGNORECASE)
_DANGLING_IN_ANSWER = re.compile(
    r"\b(?:policy|policies|guidelines?|rules?|spec) (?:above|provided|given|shown)\b"
    r"|\b(?:above|provided|aforementioned) (?:policy|policies|guidelines?|rules?|spec)\b"
    r"|\b(?:policy|policies|guidelines?|rules?|spec) (?:that )?(?:I|we) (?:was|were) given\b",
    re.IGNORECASE,
)


def find_dangling(
    text: str, *, in_answer: bool = False, has_system_message: bool = False
) -> str | None:
    """Returns the first phrase that points at a spec no longer in the prompt, or None.

    "As the policy above says, no." → "policy above"

    An answer may speak of "the text provided", which the user gave, so there only policies, rules
    and guidelines count. With `has_system_message`, the conversation has a system message of its
    own, which stays in the prompt when the spec is gone: reasoning may speak of it.
    """
    patterns = [_DANGLING_IN_ANSWER] if in_answer else [_DANGLING]
    if not in_answer and not has_system_message:
        patterns.append(_SYSTEM_MESSAGE)
    matches = [match for pattern in patterns if (match := pattern.search(text))]
    return min(matches, key=re.Match.start)[0] if matches else None
