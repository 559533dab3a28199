"""Answers match gold answers by value, however they are written."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.exact_match import exact_match
from tests.rows import real


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("The answer is 18.", "She makes 9 * 2 = $<<9*2=18>>18.\n#### 18", True),
        ("The answer is 18", "18", True),
        ("#### 18", "#### 18", True),
        ("18 eggs, so 9 a day.", "#### 18", False),
        ("It costs $1,250.00.", "#### 1250", True),
        ("It costs 1250 dollars.", "#### 1,250", True),
        ("**$1,250**", "#### $1,250", True),
        ("1,250,000", "1250000", True),
        ("18.0", "18", True),
        ("18.5", "18", False),
        ("0.5", "#### .5", True),
        ("Half: 1/2", "0.5", True),
        (r"Half: $\boxed{\frac{1}{2}}$", "0.5", True),
        ("1/0", "1", False),
        ("-5", "-5", True),
        ("−5", "-5", True),
        ("-$5", "-5", True),
        ("$-5", "-5", True),
        ("5", "-5", False),
        ("between 10-18", "18", True),
        ("9+9=18", "18", True),
        ("20% of 90 is 18%", "18", True),
        ("答案是18。", "18", True),
        ("The 18th", "18", True),
        ("It is H2", "2", False),
        ("Version v18", "18", False),
        # "118" ends with "18" as a string, but 118 != 18 as a number.
        ("118", "18", False),
        ("#### 18\nChecked in 2 ways.", "18", True),
        ("#### 9\nNo, again:\n#### 18", "18", True),
        ("#### $18.00", "18", True),
        ("#### **18** dollars.", "18", True),
        ("#### Step 3\nIn all it is 18.", "18", True),
        ("#### 3. Add up\nIn all it is 18.", "18", True),
        (r"So \boxed{18}, found in 2 steps.", "18", True),
        (r"\boxed{9} or rather \boxed{\text{18 eggs}}", "18", True),
        (r"\boxed{\$1{,}250}", "1250", True),
        (r"\boxed{1\,250}", "1250", True),
        ("1\u202f250", "1250", True),
        (r"\boxed{x}, that is 18", "18", True),
        (r"\boxed{18", "18", True),
        ("I do not know.", "18", False),
        ("", "18", False),
        ("Paris.", "Paris", True),
        ("  new   YORK ", "New York", True),
        (r"So \boxed{Paris}.", "Paris", True),
        ("London", "Paris", False),
        ("It may be Paris", "Paris", False),
        ("", "Paris", False),
        ("18", "18 eggs", False),
    ],
)
def test_a_gold_answer_is_matched_by_its_value(answer: str, target: str, right: bool) -> None:
    assert exact_match(answer, target) == float(right)


@given(
    st.integers(-(10**40), 10**40),
    st.sampled_from(["{}", "{:,}", "${:,}.00", "#### {}", "\\boxed{{{}}}"]),
)
def test_every_way_to_write_a_number_matches_it_and_not_the_next(number: int, form: str) -> None:
    answer = f"Of 7 in all: {form.format(number)}" if "####" not in form else form.format(number)
    assert exact_match(answer, f"#### {number}") == 1
    assert exact_match(answer, str(number + 1)) == 0


@given(st.text(), st.text())
def test_any_text_is_compared_without_an_error(answer: str, target: str) -> None:
    assert exact_match(answer, target) in (0.0, 1.0)


def test_every_solution_of_gsm8k_matches_itself_and_hardly_any_other() -> None:
    lines = Path(real("gsm8k/test.jsonl")).read_text().splitlines()
    golds = [json.loads(line)["answer"] for line in lines]
    assert all(exact_match(gold, gold) for gold in golds)
    assert all(exact_match(gold.replace("#### ", "The answer is $") + ".", gold) for gold in golds)
    others = zip(golds, golds[1:] + golds[:1], strict=True)
    assert sum(exact_match(gold, other) for gold, other in others) < 0.05 * len(golds)
