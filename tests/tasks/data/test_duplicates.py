"""Duplicates: near duplicates are found by their words, and evaluation sets are held out."""

import unicodedata
from collections.abc import Iterable

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from specs.prompts import Message
from tasks.data.candidates import read_source
from tasks.data.duplicates import Evaluations, NearDuplicates, _tokens
from tasks.data.sources import SourceConfig
from tests.rows import long_text, real


def chat(text: str, *, system: str | None = None) -> list[Message]:
    before: list[Message] = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": text}]


def alike(prompts: Iterable[list[Message]], threshold: float = 0.9) -> list[bool]:
    """Returns for each prompt whether it is a near duplicate of an earlier one."""
    near = NearDuplicates(threshold)
    return [near.has(messages) for messages in prompts]


def shared(held_out: Iterable[list[Message]], prompts: Iterable[list[Message]]) -> list[bool]:
    """Returns for each prompt whether the evaluation set holds it."""
    evaluations = Evaluations()
    for messages in held_out:
        evaluations.add(messages)
    return [evaluations.share(messages) for messages in prompts]


# Near duplicates.


def test_an_edited_copy_is_a_near_duplicate_and_a_short_text_is_not() -> None:
    texts = (long_text(1), long_text(1) + " please", long_text(2), "Hello.", "Hello!", "")
    assert alike(map(chat, texts)) == [False, True, False, False, False, False]


@pytest.mark.parametrize(("threshold", "near_duplicates"), [(1.0, 0), (0.9, 0), (0.6, 40)])
def test_prompts_that_share_a_band_are_compared_with_the_threshold(
    threshold: float, near_duplicates: int
) -> None:
    # The last 22 of 200 words differ: of 218 runs of words in both, 174 are shared, 0.8 of them.
    pairs = [
        (long_text(seed), " ".join([*long_text(seed).split()[:178], long_text(100 + seed, 22)]))
        for seed in range(1, 41)
    ]
    prompts = [chat(text) for pair in pairs for text in pair]
    assert sum(alike(prompts, threshold)) == near_duplicates


def test_questions_that_differ_in_a_sign_are_not_duplicates() -> None:
    assert alike(map(chat, ("What is 3 + 5?", "What is 3 - 5?"))) == [False, False]


def test_case_and_unicode_compatibility_forms_make_no_difference() -> None:
    assert alike(map(chat, ("Where is the ﬁsh?", "where IS the fish?"))) == [False, True]


def test_a_long_system_prompt_that_rows_share_does_not_make_them_alike() -> None:
    prompts = [
        chat("Where is the boat?", system=long_text(1)),
        chat("What is bread?", system=long_text(1)),
        chat("Where is the boat?", system=long_text(2)),
    ]
    assert alike(prompts) == [False, False, False]


def test_edited_copies_of_gsm8k_are_near_duplicates() -> None:
    gsm8k = SourceConfig(name="gsm8k", path=real("gsm8k/test.jsonl"), prompt="question")
    questions = [row.messages[0]["content"] for row in read_source(gsm8k)]
    copies = [question + " Explain." for question in questions]
    flags = alike(map(chat, questions + copies), 0.7)
    assert flags[: len(questions)].count(False) > 1300
    assert flags[len(questions) :].count(True) > 1250


# Evaluation sets.


def test_a_prompt_is_held_out_if_it_is_in_the_set_or_shares_13_words_in_a_row() -> None:
    words = long_text(1, 40).split()
    texts = (
        "“How are you?”",
        "Say this: " + ", ".join(words[5:18]) + " again",
        "Say this: " + ", ".join(words[5:17]) + " again",
        "How are you today?",
    )
    flags = shared([chat("How are you?"), chat(" ".join(words))], map(chat, texts))
    assert flags == [True, True, False, False]


def test_every_turn_of_the_user_is_compared_and_no_other_turn() -> None:
    def turns(first: str, answer: str, system: str = "Be brief.") -> list[Message]:
        return [
            *chat(first, system=system),
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "Good."},
        ]

    prompts = [
        turns("how are  YOU", "Well."),
        turns("Well?", "How are you?"),
        turns("Well?", "Well.", system="How are you?"),
    ]
    assert shared([chat("How are you?")], prompts) == [True, False, False]


def test_a_prompt_without_words_is_compared_by_its_signs() -> None:
    assert shared([chat("?!")], [chat("? !"), chat("?"), chat("Why?!")]) == [True, False, False]


LEAKS = {
    "en": "how do I bake a loaf of rye bread in a small oven without burning it",
    "ko": "작은 오븐에서 호밀빵 한 덩이를 태우지 않고 "
    "겉은 바삭하고 속은 촉촉하게 잘 구우려면 어떻게 하나요",
    "zh": "我怎样才能用一个小烤箱烤出一条外脆里嫩的黑麦面包而不把它烤焦",
    "ja": "小さなオーブンで外はかりっと中はふんわりした"
    "ライ麦パンを焦がさずに上手に焼くにはどうすればよいですか",
    "hi": "मैं छोटे ओवन में राई की रोटी को बिना जलाए कैसे पका सकता हूँ",
    "th": "ฉันจะอบขนมปังไรย์หนึ่งก้อนในเตาอบขนาดเล็กโดยไม่ให้ไหม้ได้อย่างไร",
    "bn": "আমি কীভাবে একটি ছোট চুলায় রাইয়ের রুটি না পুড়িয়ে ভালো করে সেঁকতে পারি বলো তো",
    "km": "តើខ្ញុំអាចដុតនំប៉័ងមួយដុំក្នុងឡតូចមួយដោយមិនឱ្យខ្លោចដោយរបៀបណា",
}


@pytest.mark.parametrize("language", LEAKS)
def test_a_text_of_13_words_is_found_within_another_in_every_script(language: str) -> None:
    leak = LEAKS[language]
    prompts = [chat(f"“{leak}”: {leak[:9]}?"), chat(leak[:12])]
    assert shared([chat(leak)], prompts) == [True, False]


@pytest.mark.parametrize(
    ("held_out", "collected"),
    [
        (
            "아이들과 함께 종이배를 접으려면 어떤 단계를 따라야 하나요?",
            "맛있는 김치를 집에서 처음부터 만들려면 어떤 단계를 따라야 하나요?",
        ),
        (
            "子供たちと一緒に紙の船を折るにはどのような手順を踏めばよいですか?",
            "美味しいキムチを家で一から作るにはどのような手順を踏めばよいですか?",
        ),
        (
            "和孩子们一起折纸船的时候我们应该遵循哪些步骤才能做好?",
            "在家从头开始制作泡菜的时候我们应该遵循哪些步骤才能做好?",
        ),
        (
            "बच्चों के साथ कागज़ की नाव बनाने के लिए किन चरणों का पालन करना चाहिए?",
            "घर पर स्वादिष्ट किमची तैयार करने के लिए किन चरणों का पालन करना चाहिए?",
        ),
        (
            "শিশুদের সঙ্গে কাগজের নৌকা বানাতে হলে কোন কোন ধাপ অনুসরণ করতে হবে?",
            "বাড়িতে সুস্বাদু কিমচি তৈরি করতে হলে কোন কোন ধাপ অনুসরণ করতে হবে?",
        ),
        (
            "พับเรือกระดาษกับเด็กๆต้องทำตามขั้นตอนอะไรบ้าง",
            "ทำกิมจิอร่อยๆที่บ้านต้องทำตามขั้นตอนอะไรบ้าง",
        ),
    ],
    ids=["ko", "ja", "zh", "hi", "bn", "th"],
)
def test_prompts_that_end_in_the_same_few_words_are_kept(held_out: str, collected: str) -> None:
    assert shared([chat(held_out)], [chat(collected)]) == [False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("যেসকল ছেলেরা", ["যেসকল", "ছেলেরা"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("ఎలా ఉన్నారు?", ["ఎలా", "ఉన్నారు", "?"]),
        ("مُحَمَّد هنا", ["مُحَمَّد", "هنا"]),
        ("아이들과 함께", ["아이들과", "함께"]),
        ("น้ำแข็งทำอย่างไร", ["น้ำ", "แข็ง", "ทำ", "อย่างไร"]),
        ("ນ້ຳກິນເຂົ້າ", ["ນ້ຳ", "ກິນເຂົ້າ"]),
        ("ខ្ញុំស្រលាញ់", ["ខ្ញុំ", "ស្រលាញ់"]),
        ("喜欢苹果,iPhone15!", ["喜欢", "苹果", ",", "iphone15", "!"]),
        ("紙の船を折る", ["紙の", "船を", "折る"]),
        ("𠮷野家 😀abc", ["𠮷", "野家", "😀", "abc"]),
        ("ᥖᥭᥰᥖᥬᥲ", list("ᥖᥭᥰᥖᥬᥲ")),
        ("❤️ok don’t 3+5", ["❤", "ok", "don", "’", "t", "3", "+", "5"]),
        ("Ｆｕｌｌ ﬁsh e\u0301", ["full", "fish", "é"]),
    ],
)
def test_a_word_is_what_its_script_has_for_one(text: str, words: list[str]) -> None:
    assert _tokens(text) == words


@given(st.text())
def test_words_and_signs_hold_every_visible_character_of_a_text(text: str) -> None:
    plain = unicodedata.normalize("NFKC", text).casefold()
    visible = regex.sub(r"[\p{DI}\p{Cf}\s\x1c-\x1f]", "", plain)
    joined = "".join(_tokens(text))
    assert joined.replace("\u0e33", "\u0e4d\u0e32").replace("\u0eb3", "\u0ecd\u0eb2") == visible


@pytest.mark.parametrize(
    "text",
    [
        "How\u200b are\u200b you?",
        "H\u200bow a\u00adre y\u2060ou?",
        "How\u200bare\u200byou?",
        "ＨＯＷ　ＡＲＥ　ＹＯＵ",
    ],
)
def test_invisible_characters_and_full_width_forms_hide_nothing(text: str) -> None:
    assert shared([chat("How are you?")], [chat(text)]) == [True]
    assert shared([chat(text)], [chat("How are you?")]) == [True]


def test_without_evaluation_sets_nothing_is_held_out() -> None:
    assert shared([], [chat("How are you?"), chat("")]) == [False, False]
