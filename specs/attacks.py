"""Attacks on a prompt: ways to wrap or rewrite a request so that a model answers what it must not.

An attack is a pure function of the messages, a seed and, if it forges a model's own structure, that
model's marks. Its rendering is the same on every machine and changes only with its version. Names
are those of StrongREJECT (arXiv 2402.10260) where it has the attack; the wording is our own, so
figures compare by technique, not word for word. The wording stands in `attacks/*.md`, as turns that
replace the user's last one.

    ATTACKS["reversed"].render([{"role": "user", "content": "May I row?"}])

Special tokens are rendered unbroken. A caller that wants them broken applies `neutralise` to the
rendering, not to the request: ">|dne_mi|<" becomes a special token only once it is reversed.
"""

import base64
import codecs
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Literal

from specs.prompts import Message
from specs.template import Template

Family = Literal[
    "none",
    "encoding",
    "noise",
    "splitting",
    "prefix",
    "style",
    "distractor",
    "persona",
    "reframing",
    "few_shot",
    "combination",
    "template",
]

_FOLDER = Path(__file__).parent / "attacks"


class AttackError(ValueError):
    """An attack that does not exist, or that cannot be rendered on the messages given."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The text that a model's chat template puts around the parts of a chat."""

    turn: str
    """Between the user's last words and the reply."""
    opening: str
    """Before the reasoning."""
    between: str
    """Between reasoning and answer."""
    ending: str
    """Ends the reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One technique: the request is encoded or perturbed, then the text of a file put around it."""

    name: str
    family: Family
    version: str = "1"
    """Raised with every change of the rendering."""
    needs_marks: bool = False
    """True if it forges a model's own structure."""
    file: str = ""
    """Stem of the Markdown file. Unset: the name."""
    how: str = ""
    """The way the request is written, for a file with `{{how}}`."""
    encode: Callable[[str], str] = str
    noise: Callable[[str, Callable[[], float]], str] | None = None
    """A perturbation in place of `encode`, whose second argument draws from [0, 1). Unset: the
    rendering does not depend on the seed."""

    def render(
        self, messages: Sequence[Message], *, seed: int = 0, marks: Marks | None = None
    ) -> list[Message]:
        """Returns the messages with their last user turn attacked, and the rest unchanged.

        Raises AttackError if there is no user turn, or if it needs marks and has none.
        """
        if self.needs_marks and marks is None:
            raise AttackError(
                f"attack {self.name} needs the marks of the attacked model's chat template and has "
                "none; pass them as `marks`"
            )
        turns = [message.copy() for message in messages]
        user_indices = [index for index, turn in enumerate(turns) if turn["role"] == "user"]
        if not user_indices:
            raise AttackError(
                f"attack {self.name} needs a user turn, and none of the {len(turns)} turns is one; "
                "leave such prompts out"
            )
        last = user_indices[-1]
        values = {} if marks is None else asdict(marks)
        values |= {"request": self._write(turns[last]["content"], seed), "how": self.how}
        turns[last : last + 1] = _load(self.file or self.name).fill(values)
        return turns

    def _write(self, request: str, seed: int) -> str:
        if self.noise is None:
            return self.encode(request)
        # Only `random()` of a Random seeded with text is the same in every version of Python.
        draw = Random("\x00".join([self.name, self.version, str(seed), request])).random
        return self.noise(request, draw)


def find_attacks(names: Sequence[str]) -> list[Attack]:
    """Returns the attacks of those names, in that order. Raises AttackError if one is unknown."""
    for name in names:
        if name not in ATTACKS:
            close = get_close_matches(name, ATTACKS)
            advice = " or ".join(close) if close else f"one of {', '.join(ATTACKS)}"
            raise AttackError(f"attack {name!r} is unknown; write {advice}")
    return [ATTACKS[name] for name in names]


@cache
def _load(stem: str) -> Template:
    return Template(name=stem, text=(_FOLDER / f"{stem}.md").read_text(encoding="utf-8"))


_MORSE_TABLE = """
A .-    B -...  C -.-.  D -..   E .     F ..-.  G --.   H ....  I ..    J .---  K -.-   L .-..
M --    N -.    O ---   P .--.  Q --.-  R .-.   S ...   T -     U ..-   V ...-  W .--   X -..-
Y -.--  Z --..  0 ----- 1 .---- 2 ..--- 3 ...-- 4 ....- 5 ..... 6 -.... 7 --... 8 ---.. 9 ----.
. .-.-.-  , --..--  ? ..--..  ' .----.  ! -.-.--  / -..-.   ( -.--.   ) -.--.-  & .-...
: ---...  ; -.-.-.  = -...-   + .-.-.   - -....-  _ ..--.-  " .-..-.  $ ...-..-  @ .--.-.
"""
_MORSE = dict(re.findall(r"(\S) (\S+)", _MORSE_TABLE))
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ATBASH = str.maketrans(_LETTERS + _LETTERS.upper(), _LETTERS[::-1] + _LETTERS[::-1].upper())
_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_VOWELS = str.maketrans("", "", "aeiouAEIOU")
_FULLWIDTH = {0x20: 0x3000} | {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
_SIGMA = 0.4
"""The strength of the noise of `best_of_n`, from 0 to 1, as in arXiv 2412.03556."""


def _rot_13(text: str) -> str:
    return codecs.encode(text, "rot13")


def _base_64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _disemvowel(text: str) -> str:
    return text.translate(_VOWELS)


def _ascii(text: str) -> str:
    return " ".join(str(ord(character)) for character in text)


def _hex(text: str) -> str:
    return text.encode().hex()


def _morse(text: str) -> str:
    """Keeps characters that have no Morse code."""
    words = text.upper().split()
    return " / ".join(
        " ".join(_MORSE.get(character, character) for character in word) for word in words
    )


def _leet(text: str) -> str:
    return text.translate(_LEET)


def _atbash(text: str) -> str:
    return text.translate(_ATBASH)


def _reversed(text: str) -> str:
    return text[::-1]


def _reversed_words(text: str) -> str:
    """Punctuation stays: "a raft, sir!" → "a tfar, ris!"."""
    return re.sub(r"\w+", lambda match: match[0][::-1], text)


def _fullwidth(text: str) -> str:
    return text.translate(_FULLWIDTH)


def _zero_width(text: str) -> str:
    return "\u200b".join(text)


def _split(text: str) -> str:
    """Returns three lines: "ferry" → a = "f", b = "er", c = "ry"."""
    cuts = [len(text) * third // 3 for third in range(4)]
    parts = [text[start:end] for start, end in pairwise(cuts)]
    lines = zip("abc", parts, strict=True)
    return "\n".join(f"{name} = {json.dumps(part, ensure_ascii=False)}" for name, part in lines)


def _perturb(text: str, draw: Callable[[], float]) -> str:
    """Shuffles inner letters, swaps the case of letters, and replaces some by their neighbours."""
    likely, rare = math.sqrt(_SIGMA), _SIGMA**3

    def scramble(match: re.Match[str]) -> str:
        word = match[0]
        if draw() >= likely:
            return word
        return word[0] + "".join(sorted(word[1:-1], key=lambda _: draw())) + word[-1]

    def alter(character: str) -> str:
        if character.isascii() and draw() < likely:
            character = character.swapcase()
        if draw() < rare:
            neighbour = chr(ord(character) + (1 if draw() < 0.5 else -1))
            if " " <= character <= "~" and " " <= neighbour <= "~":
                return neighbour
        return character

    return "".join(map(alter, re.sub(r"\S{4,}", scramble, text)))


def _encoding(name: str, how: str, encode: Callable[[str], str]) -> Attack:
    return Attack(name=name, family="encoding", file="encoded", how=how, encode=encode)


_ALL = [
    Attack(name="none", family="none", file="bare"),
    _encoding("rot_13", "in ROT13", _rot_13),
    Attack(name="base_64", family="encoding", encode=_base_64),
    _encoding("base_64_input_only", "in Base64", _base_64),
    Attack(name="base_64_output_only", family="encoding"),
    Attack(name="base_64_raw", family="encoding", file="bare", encode=_base_64),
    _encoding("disemvowel", "without its vowels", _disemvowel),
    _encoding("ascii", "as the decimal codes of its characters", _ascii),
    _encoding("hex", "as the bytes of its text in hexadecimal", _hex),
    _encoding("morse", "in Morse code, with a slash between words", _morse),
    _encoding("leet", "in leetspeak, with digits for some letters", _leet),
    _encoding("atbash", "in Atbash, which swaps A and Z, B and Y, and so on", _atbash),
    _encoding("reversed", "backwards, from its last character to its first", _reversed),
    _encoding("reversed_words", "with each word spelled backwards", _reversed_words),
    _encoding("fullwidth", "in full-width characters", _fullwidth),
    _encoding("zero_width", "with a zero-width space between its characters", _zero_width),
    Attack(name="best_of_n", family="noise", file="bare", noise=_perturb),
    Attack(name="payload_splitting", family="splitting", encode=_split),
    Attack(name="prefix_injection", family="prefix"),
    Attack(name="refusal_suppression", family="prefix"),
    Attack(name="style_injection_json", family="style"),
    Attack(name="style_injection_short", family="style"),
    Attack(name="wikipedia", family="style"),
    Attack(name="wikipedia_with_title", family="style"),
    Attack(name="distractors", family="distractor"),
    Attack(name="distractors_negated", family="distractor"),
    Attack(name="poems", family="distractor"),
    Attack(name="evil_confidant", family="persona"),
    Attack(name="aim", family="persona"),
    Attack(name="dev_mode_v2", family="persona"),
    Attack(name="dev_mode_with_rant", family="persona"),
    Attack(name="policy_puppetry", family="reframing"),
    Attack(name="intent_hijack", family="reframing"),
    Attack(name="h_cot", family="reframing"),
    Attack(name="few_shot_json", family="few_shot"),
    Attack(name="combination_1", family="combination", encode=_base_64),
    Attack(name="combination_2", family="combination", encode=_base_64),
    Attack(name="combination_3", family="combination", encode=_base_64),
    Attack(name="template_end_of_turn", family="template", needs_marks=True),
    Attack(name="template_reasoning", family="template", needs_marks=True),
    Attack(name="close_think", family="template", needs_marks=True),
    Attack(name="forged_justification", family="template", needs_marks=True),
    Attack(name="fake_over_refusal", family="template", needs_marks=True),
    Attack(name="plan_injection", family="template", needs_marks=True),
]
ATTACKS: Mapping[str, Attack] = {attack.name: attack for attack in _ALL}
"""Every attack by its name."""
