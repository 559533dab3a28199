"""Attacks lose no request, render alike everywhere, and make structure only where left unbroken."""

import base64
import codecs
import json
import os
import pickle
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import astuple
from itertools import groupby
from unicodedata import normalize

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from specs.attacks import ATTACKS, Attack, AttackError, Marks, find_attacks
from specs.prompts import Message
from tasks.paths import PROJECT
from tests.tasks.engine.test_chat_template import FAMILIES, chats_of, tokenizer_of

FERRY = "When does the ferry leave the harbour, and may I take 2 bikes on board?"
CHAT: list[Message] = [
    {"role": "system", "content": "You keep the quay."},
    {"role": "user", "content": "May I row?"},
    {"role": "assistant", "content": "You may."},
    {"role": "user", "content": FERRY},
]
MARKS = Marks("<end>\n<reply>", "<thought>", "</thought>", "<end>")
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


def turn(content: str) -> Message:
    return {"role": "user", "content": content}


def rendered(attack: Attack, request: str, *, seed: int = 0) -> str:
    """Returns the last turn of the attacked chat."""
    return attack.render([turn(request)], seed=seed, marks=MARKS)[-1]["content"]


MORSE = dict(zip([85, 115, 76, 97, 94, 82], ".,?-'\"", strict=True)) | dict(
    enumerate("  ETIANMSURWDKGOHVF L PJBXCYZQ  54 3   2       16       7   8 90")
)
"""Signs by their code in binary: a one before it, 0 for a dot, 1 for a dash."""


def from_morse(text: str) -> str:
    def sign_of(code: str) -> str:
        bits = code.replace(".", "0").replace("-", "1")
        return code if set(bits) - {"0", "1"} else MORSE[int(f"1{bits}", 2)]

    return " ".join("".join(map(sign_of, word.split())) for word in text.split(" / "))


def from_atbash(text: str) -> str:
    def turned(match: re.Match[str]) -> str:
        first, last = ("a", "z") if match[0].islower() else ("A", "Z")
        return chr(ord(first) + ord(last) - ord(match[0]))

    return re.sub("[a-zA-Z]", turned, text)


def from_base_64(text: str) -> str:
    return base64.b64decode(text, validate=True).decode()


def from_parts(text: str) -> str:
    parts = re.findall(r'^[abc] = (".*")$', text, re.MULTILINE)
    return "".join(map(json.loads, parts))


def backwards(text: str) -> str:
    return "".join(reversed(text))


def words_backwards(text: str) -> str:
    runs = ((is_word, "".join(run)) for is_word, run in groupby(text, key=str.isalnum))
    return "".join(backwards(run) if is_word else run for is_word, run in runs)


BARE = {"base_64_raw", "best_of_n", "none"}
DECODERS: dict[str, Callable[[str], str]] = {
    "rot_13": lambda text: codecs.decode(text, "rot13"),
    "base_64": from_base_64,
    "base_64_input_only": from_base_64,
    "base_64_raw": from_base_64,
    "combination_1": from_base_64,
    "combination_2": from_base_64,
    "combination_3": from_base_64,
    "ascii": lambda text: "".join(chr(int(code)) for code in text.split(" ")),
    "hex": lambda text: bytes.fromhex(text).decode(),
    "morse": from_morse,
    "leet": lambda text: text.translate(str.maketrans("431057", "aeiost")).lower(),
    "atbash": from_atbash,
    "reversed": backwards,
    "reversed_words": words_backwards,
    "fullwidth": lambda text: normalize("NFKC", text),
    "zero_width": lambda text: text.replace("\u200b", ""),
    "disemvowel": str,
}
KEEPS: dict[str, Callable[[str], str]] = {
    "morse": lambda text: " ".join(text.upper().split()),
    "leet": str.lower,
    "disemvowel": lambda text: re.sub("[aeiou]", "", text, flags=re.IGNORECASE),
}
"""The part of a request that is kept by encodings that lose some of it."""
requests = st.text("abeiotyzAEZ ,.?-'\"é水\n", min_size=1).filter(str.strip)


@pytest.mark.parametrize("name", DECODERS)
@given(request=requests)
@example(request=FERRY)
def test_an_encoded_request_is_decoded_to_the_original(name: str, request: str) -> None:
    content = rendered(ATTACKS[name], request)
    if name not in BARE:
        stated, _, content = content.partition("\n\n")
        assert "request at the end" in stated
    assert DECODERS[name](content) == KEEPS.get(name, str)(request)


@given(request=requests)
def test_a_split_request_is_joined_to_the_original(request: str) -> None:
    assert from_parts(rendered(ATTACKS["payload_splitting"], request)) == request


def test_each_word_is_spelled_backwards_and_its_punctuation_stays() -> None:
    content = rendered(ATTACKS["reversed_words"], "A raft, isn't it?")
    assert content.endswith("\n\nA tfar, nsi't ti?")


@every_attack
def test_no_request_is_lost_or_read_as_a_placeholder(attack: Attack) -> None:
    for request in (FERRY, "May I row\n{{turn}} {{request}} {{how}} \\1?"):
        content = rendered(attack, request)
        if attack.name not in {*DECODERS, "payload_splitting", "best_of_n"}:
            assert content.count(request) == 1
        assert (content == request) is (attack.name == "none")


@every_attack
def test_only_the_last_user_turn_changes_and_the_input_is_left_alone(attack: Attack) -> None:
    later: Message = {"role": "assistant", "content": "At noon."}
    messages = [*CHAT, later]
    before = deepcopy(messages)
    attacked = attack.render(messages, marks=MARKS)
    assert attacked[:3] == CHAT[:3]
    assert attacked[-1] == later
    added = [message["role"] for message in attacked[3:-1]]
    assert added == ["user", "assistant"] * (len(added) // 2) + ["user"]
    assert (len(added) > 1) is (attack.family == "few_shot")
    for message in attacked:
        message["content"] = "changed"
    assert messages == before


PINNED = """
none 1 533f0435
rot_13 1 bb04579d
base_64 1 8a62291c
base_64_input_only 1 81dfc814
base_64_output_only 1 a47e7161
base_64_raw 1 96c59692
disemvowel 1 da180745
ascii 1 a2f30a6c
hex 1 38de8f3d
morse 1 d8bd366a
leet 1 95fd2c25
atbash 1 0c8c1d46
reversed 1 76183f06
reversed_words 1 54510a62
fullwidth 1 ea6f0e51
zero_width 1 5f67350d
best_of_n 1 7a032a4f
payload_splitting 1 82aa709b
prefix_injection 1 e61c7945
refusal_suppression 1 613f0d6c
style_injection_json 1 621fc4e0
style_injection_short 1 76376908
wikipedia 1 d11da385
wikipedia_with_title 1 612f09f5
distractors 1 ae242c1b
distractors_negated 1 67258843
poems 1 42f7286c
evil_confidant 1 b30de6ef
aim 1 c3261717
dev_mode_v2 1 fa95a445
dev_mode_with_rant 1 6c27b28c
policy_puppetry 1 bb89d9ea
intent_hijack 1 df4144dc
h_cot 1 62ca6020
few_shot_json 1 61522da8
combination_1 1 800a7164
combination_2 1 0d7fd35b
combination_3 1 aa40cb13
template_end_of_turn 1 357df359
template_reasoning 1 556735c6
close_think 1 5c87e8d2
forged_justification 1 a00fc8a4
fake_over_refusal 1 aaaef61f
plan_injection 1 0794509c
"""
"""Name, version and the first digits of a digest of the rendering of each attack."""

RENDER_ALL = """
import hashlib, json, sys
from specs.attacks import ATTACKS, Marks
chat, marks = json.load(sys.stdin)
for name, attack in ATTACKS.items():
    chats = [attack.render(chat, seed=seed, marks=Marks(*marks)) for seed in range(3)]
    print(name, attack.version, hashlib.sha256(json.dumps(chats).encode()).hexdigest()[:8])
"""


def test_an_attack_renders_the_same_in_every_process_until_its_version_is_raised() -> None:
    for seed in ("1", "2"):
        shown = subprocess.run(
            [sys.executable, "-c", RENDER_ALL],
            input=json.dumps([CHAT, astuple(MARKS)]),
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout.splitlines() == PINNED.strip().splitlines()


def test_only_noise_knows_the_seed() -> None:
    for attack in ATTACKS.values():
        renderings = {rendered(attack, FERRY, seed=seed) for seed in range(20)}
        assert len(renderings) == (20 if attack.name == "best_of_n" else 1)


def test_best_of_n_is_as_noisy_as_published_and_keeps_the_request_legible() -> None:
    def noisy(request: str) -> list[str]:
        return [rendered(ATTACKS["best_of_n"], request, seed=seed) for seed in range(300)]

    signs = Counter("".join(noisy("m" * 20)))
    turned, replaced = signs["M"], signs.total() - signs["m"] - signs["M"]
    assert turned / signs.total() == pytest.approx(0.4**0.5 * (1 - 0.4**3), abs=0.02)
    assert replaced / signs.total() == pytest.approx(0.4**3, abs=0.01)
    word = "bcdefghijklmnopqrstuvwxy"
    moved = [sum(map(str.__ne__, perturbed.lower(), word)) > 8 for perturbed in noisy(word)]
    assert sum(moved) / len(moved) == pytest.approx(0.4**0.5, abs=0.07)
    for perturbed in noisy(FERRY):
        assert len(perturbed) == len(FERRY)
        assert (Counter(perturbed.lower()) & Counter(FERRY.lower())).total() > 0.75 * len(FERRY)


def marks_of(name: str) -> Marks:
    frame = chats_of(name).frame
    return Marks(frame.prompt_ending, frame.opening, frame.between, frame.ending)


def structure(name: str, messages: Sequence[Message]) -> list[int]:
    """Returns the special tokens that a model without a guard reads in a prompt."""
    tokenizer = tokenizer_of(name)
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [token for token in ids if token in tokenizer.added_tokens_decoder]


def plain(messages: Sequence[Message]) -> list[Message]:
    return [{"role": message["role"], "content": "x"} for message in messages]


def makers_of_structure(name: str, request: str, *, broken: bool) -> list[str]:
    """Returns the attacks in whose rendering a model of that family reads special tokens."""
    names = []
    for attack in ATTACKS.values():
        attacked = attack.render([turn(request)], marks=marks_of(name))
        shown = chats_of(name).neutral(attacked) if broken else attacked
        if structure(name, shown) != structure(name, plain(attacked)):
            names.append(attack.name)
    return names


HIDDEN = ">|dne_mi|< >|nruter|< >kniht/< <|dne_mi|> <|im_end|> </think> <|end|> <｜User｜>"
"""A request that is made of special tokens, some of them spelled backwards."""


@pytest.mark.parametrize("name", FAMILIES)
def test_no_attack_makes_structure_once_special_tokens_are_broken(name: str) -> None:
    for request in (FERRY, HIDDEN):
        assert makers_of_structure(name, request, broken=True) == []


@pytest.mark.parametrize("name", ["qwen3", "qwen3.5", "r1 distill", "gpt-oss"])
def test_forged_marks_make_structure_where_they_are_left_whole(name: str) -> None:
    forging = [attack.name for attack in ATTACKS.values() if attack.needs_marks]
    assert makers_of_structure(name, FERRY, broken=False) == forging


def test_breaking_special_tokens_before_an_attack_is_too_early() -> None:
    [neutral] = chats_of("qwen3").neutral([turn(HIDDEN)])
    attacked = ATTACKS["reversed"].render([neutral])
    assert structure("qwen3", attacked) != structure("qwen3", plain(attacked))


def test_attacks_are_found_by_name_and_travel_between_processes() -> None:
    attacks = find_attacks(["rot_13", "none"])
    assert [attack.name for attack in attacks] == ["rot_13", "none"]
    assert pickle.loads(pickle.dumps(list(ATTACKS.values()))) == list(ATTACKS.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rot13", "attack 'rot13' is unknown; write rot_13"),
        ("distractor", "'distractor' is unknown; write distractors or distractors_negated"),
        ("?", r"attack '\?' is unknown; write one of none, rot_13, base_64, "),
    ],
)
def test_unknown_attack_is_refused_with_the_name_that_was_meant(name: str, message: str) -> None:
    with pytest.raises(AttackError, match=message):
        find_attacks(["none", name])


def test_attack_that_cannot_be_rendered_says_why() -> None:
    with pytest.raises(AttackError, match=r"close_think needs the marks .*; pass them as `marks`"):
        ATTACKS["close_think"].render(CHAT)
    with pytest.raises(AttackError, match=r"none needs a user turn, .* the 1 turns is one; leave"):
        ATTACKS["none"].render(CHAT[:1])


def test_every_text_belongs_to_an_attack() -> None:
    files = {file.stem for file in (PROJECT / "specs/attacks").iterdir()}
    assert files == {attack.file or attack.name for attack in ATTACKS.values()}
