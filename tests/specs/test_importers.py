"""Documents of other forms become packs, and no line of them is lost without a word."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specs.export import export_policy
from specs.importers import MARKS, Imported, import_pack, kind_of
from specs.importers.imported import lost_lines
from specs.pack import load_pack
from specs.policy import (
    BoundaryCase,
    Exclusion,
    Outcome,
    Pack,
    Policy,
    Rule,
)
from tests.rows import DATA
from tests.specs.grown import write_grown

MODEL_SPEC = DATA / "model_spec" / "model_spec.md"
real_file = pytest.mark.skipif(
    not MODEL_SPEC.is_file(), reason=f"the OpenAI Model Spec is not at {MODEL_SPEC}"
)

SMALL_SPEC = """\
# Overview {#overview}

This document is for readers.

## Levels {#levels}

- **Root**: fixed rules.

    They are few.

- **System**: rules of the maker.

- **Developer**: rules of the builder.

- **User**: wishes of the user.

- **Guideline**: defaults.

# Be clear {#clear}

This section is about words; see [how it is laid out](#layout).

## Say the answer first {#answer_first authority=guideline tags=short}

Open with the answer[^a1b2], as [this guide](https://example.org/guide) says. See also [?](#layout).

!!! meta "Commentary"
    Readers are in a hurry.

**Example**: a short question

~~~xml
<developer>
Answer in one word.
</developer>
<user>
# Question
Is 7 &lt; 8?
</user>
<comparison>
<assistant> <!-- GOOD -->
Yes
</assistant>
<assistant> <!-- BAD[#layout]: hides the answer -->
Let us see.

User: it is so
</assistant>
</comparison>
~~~

Here, the developer wants one word.

## Lay it out {#layout authority=user}

Use lists:

- short ones
- flat ones
"""


def written(imported: Imported, folder: Path) -> Pack:
    for name, text in imported.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return load_pack(folder)


def test_section_becomes_rule_with_its_authority_and_example(tmp_path: Path) -> None:
    pack = written(import_pack(SMALL_SPEC, "model_spec"), tmp_path)
    assert [name for name, _ in pack.authorities] == [
        "root",
        "system",
        "developer",
        "user",
        "guideline",
    ]
    assert dict(pack.authorities)["root"] == "fixed rules. They are few."
    first, layout = pack.policies["clear"].rules
    assert (first.title, first.outcome, first.authority) == (
        "Say the answer first",
        None,
        "guideline",
    )
    assert (
        first.text
        == f'Open with the answer, as this guide says. See also "Lay it out" ({layout.id}).'
    )
    assert layout.id in pack.policies["clear"].scope
    [example] = first.examples
    labels = [label for label, _ in example.turns]
    assert labels == ["Developer", "User", "Good answer", "Bad answer"]
    assert re.findall(r"# Question|Is 7 < 8\?", dict(example.turns)["User"]) == [
        "# Question",
        "Is 7 < 8?",
    ]
    assert "User: it is so" in dict(example.turns)["Bad answer"]
    assert example.because == (
        f'Bad answer: against "Lay it out" ({layout.id}), hides the answer. '
        "Here, the developer wants one word."
    )


def test_commentary_footnotes_and_addresses_are_listed_with_their_lines() -> None:
    listed = import_pack(SMALL_SPEC, "model_spec").not_placed
    lines = SMALL_SPEC.split("\n")
    assert all(item.text in lines[item.line - 1] for item in listed)
    assert Counter(item.reason.split(",")[0] for item in listed) == {
        "a heading without text of its own": 2,
        "says how the document is built": 1,
        "an attribute that rules of a pack do not have": 1,
        "a footnote mark": 1,
        "the address of a link": 1,
        "commentary": 1,
    }


def test_rule_keeps_its_id_when_sections_are_added_and_moved() -> None:
    def ids(text: str) -> dict[str, str]:
        [policy] = [v for k, v in import_pack(text, "model_spec").files.items() if k == "clear.md"]
        return {title: rule for rule, title in re.findall(r"^## (\w+) (.+) \(", policy, re.M)}

    head, layout = SMALL_SPEC.split("## Lay it out")
    above, answer = head.split("## Say the answer first")
    added = "## Be kind {#be_kind authority=user}\n\nBe kind.\n\n"
    moved = f"{above}## Lay it out{layout}\n{added}## Say the answer first{answer}"
    before, after = ids(SMALL_SPEC), ids(moved)
    assert after.keys() - before.keys() == {"Be kind"}
    assert {title: after[title] for title in before} == before


def test_policy_named_style_does_not_overwrite_the_styles_of_the_pack(tmp_path: Path) -> None:
    text = SMALL_SPEC.replace("{#clear}", "{#style}")
    assert list(written(import_pack(text, "model_spec"), tmp_path).policies) == ["style"]


@pytest.mark.parametrize("kind", ["model_spec", "classifier", "taxonomy"])
def test_line_that_is_in_no_file_and_not_listed_is_lost(kind: str) -> None:
    text = {"model_spec": SMALL_SPEC, "classifier": PROMPT, "taxonomy": TAXONOMY}[kind]
    imported = import_pack(text, kind)  # type: ignore[arg-type]
    files = "\n".join(imported.files.values())
    assert lost_lines(text, files, imported.not_placed, MARKS[kind]) == []
    for number, line in enumerate(text.split("\n"), 1):
        pieces = [re.findall(r"\w+", piece) for piece in MARKS[kind].sub("\0", line).split("\0")]
        words = max(pieces, key=len)
        if len(words) < 3 or any(item.line == number for item in imported.not_placed):
            continue
        cut = re.sub(r"\W+".join(words), "", files, flags=re.IGNORECASE)
        assert number in [n for n, _ in lost_lines(text, cut, imported.not_placed, MARKS[kind])]


@real_file
def test_counts_of_the_real_model_spec_are_those_made_by_hand() -> None:
    text = MODEL_SPEC.read_text(encoding="utf-8")
    assert len(re.findall(r"^#+ .*\{#", text, re.MULTILINE)) == 80
    assert len(re.findall(r"^\*\*Example\*\*:", text, re.MULTILINE)) == 183
    imported = import_pack(text, "model_spec")
    files = "\n".join(imported.files.values())
    assert imported.num_sections == 80
    # 8 sections of the first level and 5 below the overview are no rules.
    assert imported.num_rules == len(re.findall(r"^## \w+ .+ \(guide\b", files, re.M)) == 67
    # Two examples of the definitions belong to no rule.
    assert imported.num_examples == len(re.findall(r"^### Example: ", files, re.M)) == 181
    authorities = Counter(re.findall(r"^## .+ \(guide, (\w+)\)$", files, re.M))
    assert authorities == {"root": 22, "guideline": 18, "user": 15, "system": 3, "developer": 1}
    answers = Counter(re.findall(r"^(Good answer|Bad answer):", files, re.M))
    assert answers == {"Good answer": 193, "Bad answer": 196}
    reasons = Counter(item.reason.split(",")[0] for item in imported.not_placed)
    assert reasons["a footnote mark"] == 116
    assert len([x for x in text.split("\n") if x.startswith("!!! meta")]) == 28


@real_file
def test_every_line_of_the_real_model_spec_is_in_the_compiled_specs_or_listed(
    tmp_path: Path,
) -> None:
    text = MODEL_SPEC.read_text(encoding="utf-8")
    imported = import_pack(text, "model_spec")
    assert "a line that the importer does not read" not in {x.reason for x in imported.not_placed}
    pack = written(imported, tmp_path)
    compiled = [pack.spec(list(pack.policies)).text]
    # No model is shown the titles of policies.
    compiled += [policy.title for policy in pack.policies.values()]
    assert lost_lines(text, "\n".join(compiled), imported.not_placed, MARKS["model_spec"]) == []


PROMPT = """\
# Garden Rules

## INSTRUCTIONS
Label the message. Answer 0 or 1.

## DEFINITIONS
- **hedge**: a row of shrubs

## VIOLATES (1)
Messages that:
- Ask how to cut the hedge of a neighbour by night
- **G7 Loud tools** (safe_complete): Asks for tools that wake the street.
  - Includes: leaf blowers
  - Excludes: tools by day (see G9)

## SAFE (0)
- **G9 Tools by day**: Asks for tools that are used by day.

## BORDERLINE
- If the hour is not told, ask for it.

## WEATHER
It rains.

## EXAMPLES
### Example 1, by rule G9
Content: Which saw shall I buy?
Answer: 0

Content: "How do I cut it unseen?"
Answer: 1 because it is not theirs

Content: [INPUT]
Answer (0 or 1):
"""


def test_criteria_become_rules_and_examples_become_cases(tmp_path: Path) -> None:
    imported = import_pack(PROMPT, "classifier")
    pack = written(imported, tmp_path)
    policy = pack.policies["garden_rules"]
    night, loud, day = policy.rules
    assert policy.terms == (("hedge", "a row of shrubs"),)
    assert policy.unclear == ("If the hour is not told, ask for it.",)
    assert night.text == "Ask how to cut the hedge of a neighbour by night"
    assert (night.id, night.outcome) == ("GR1", Outcome.REFUSE)
    assert night.cases == (
        BoundaryCase(
            text="How do I cut it unseen?",
            outcome=Outcome.REFUSE,
            because="because it is not theirs",
        ),
    )
    assert (loud.id, loud.title, loud.outcome) == ("G7", "Loud tools", Outcome.SAFE_COMPLETE)
    assert loud.includes == ("leaf blowers",)
    assert loud.excludes == (Exclusion(text="tools by day", goto="G9"),)
    assert [case.text for case in day.cases] == ["Which saw shall I buy?"]
    assert [(item.line, item.reason) for item in imported.not_placed] == [
        (4, "tells the classifier how to reply, which templates do in a pack"),
        (10, "introduces a list"),
        (22, "a section that is neither criteria, terms nor examples"),
        (23, "a section that is neither criteria, terms nor examples"),
        (33, "an example without a label that can be read"),
        (34, "an example without a label that can be read"),
    ]


def test_section_with_a_title_of_its_own_is_one_rule() -> None:
    text = """\
**Noise Policy**
**GOAL:** Find noise.

**Quiet (N0 - none)**
Talk in a low voice.
- whispers

**Loud (N3 - high)**
Talk that wakes others.
- shouts
  **Output:** INVALID
"""
    assert kind_of(text.replace("Quiet", "Allowed")) == "classifier"
    policy = import_pack(text.replace("Quiet", "Allowed"), "classifier").files["noise_policy.md"]
    assert "Allowed (N0 - none) (comply)\n\nTalk in a low voice.\n\n- Includes: whispers" in policy
    assert "Loud (N3 - high) (refuse)\n\nTalk that wakes others.\n\n- Includes: shouts" in policy


def exported_policy() -> Policy:
    case = BoundaryCase(text="Which saw cuts wood?", outcome=Outcome.COMPLY, because="It is day.")
    return Policy(
        id="garden_rules",
        title="Garden rules",
        version="1",
        summary={"refuse": "x"},
        goal="Keep the peace.",
        terms=(("hedge", "a row of shrubs"),),
        levels=(("high", "wakes the street"),),
        unclear=("If the hour is not told, ask for it.",),
        rules=(
            Rule(
                id="G1",
                title="Cuts by night",
                outcome=Outcome.REFUSE,
                level="high",
                text="Help to cut by night is refused.",
                includes=("ladders", "lamps"),
                excludes=(Exclusion(text="day", goto="G2"), Exclusion(text="dusk", goto=None)),
                cases=(case, replace(case, text="Is a lamp seen?", outcome=Outcome.REFUSE)),
            ),
            Rule(
                id="G2",
                title="Cuts by day",
                outcome=Outcome.COMPLY,
                text="Give help.",
                cases=(case,),
            ),
            Rule(id="G3", title="Tired users", outcome=Outcome.SAFE_COMPLETE, text="Offer a rest."),
        ),
    )


@pytest.mark.parametrize("labels", ["binary", "names", "json"])
def test_exported_policy_is_imported_as_it_was(labels: str, tmp_path: Path) -> None:
    policy = exported_policy()
    text = export_policy(policy, labels=labels).text  # type: ignore[arg-type]
    assert kind_of(text) == "classifier"
    back = written(import_pack(text, "classifier"), tmp_path).policies["garden_rules"]
    rules = sorted(back.rules, key=lambda rule: rule.id)
    assert [replace(rule, cases=()) for rule in rules] == [
        replace(rule, cases=()) for rule in policy.rules
    ]
    cases = [case for rule in rules for case in rule.cases]
    assert cases == [case for rule in policy.rules for case in rule.cases]
    assert (back.goal, back.terms, back.levels, back.unclear) == (
        policy.goal,
        policy.terms,
        policy.levels,
        policy.unclear,
    )


def test_safety_policy_comes_back_with_every_rule(tmp_path: Path) -> None:
    policy = load_pack("specs/safety").policies["violence"]
    imported = import_pack(export_policy(policy, labels="names").text, "classifier")
    back = written(imported, tmp_path).policies["violence"]
    assert {(x.id, x.title, x.outcome, x.text, x.includes) for x in back.rules} == {
        (x.id, x.title, x.outcome, x.text, x.includes) for x in policy.rules
    }


def test_lists_tables_code_and_conversations_of_an_exported_policy_come_back(
    tmp_path: Path,
) -> None:
    policy = load_pack(write_grown(tmp_path / "grown")).policies["boats"]
    exported = export_policy(policy)
    assert exported.left_out == (
        "2 examples without an outcome",
        "the answers of 2 worked examples",
        "the authorities of rules",
        "the style",
    )
    back = written(import_pack(exported.text, "classifier"), tmp_path).policies["boats"]
    bare = [replace(rule, authority="", cases=(), examples=()) for rule in policy.rules]
    assert [replace(rule, cases=()) for rule in back.rules] == bare
    assert (back.goal, back.scope, back.terms) == (policy.goal, policy.scope, policy.terms)
    assert back.rules[0].cases[1].text == (
        "System: You rent boats. Answer in rhyme. Developer: Night rents are fine. "
        "User: A boat at four, please?"
    )


def test_prompt_says_the_form_of_the_reply_twice_and_keeps_few_examples_of_each_label() -> None:
    exported = export_policy(exported_policy(), most=2)
    assert exported.text.count("Return exactly one character, 0 or 1") == 2
    assert re.findall(r"^Answer: (\d)$", exported.text, re.M) == ["0", "1"]
    assert exported.left_out == ("1 examples",)


def test_policy_of_guides_alone_is_not_exported() -> None:
    guide = replace(exported_policy().rules[2], outcome=None)
    with pytest.raises(ValueError, match="has only guide rules"):
        export_policy(replace(exported_policy(), rules=(guide,)))


TAXONOMY = """\
What we watch.

Noise: Anything that wakes the street at night.

**Hedges.** Cutting what belongs to others.

- S3: Water. Turning on a sprinkler
  at noon.

## Paths

Blocking a path that all may use.

With bins, for instance.
"""


def test_each_paragraph_of_a_taxonomy_becomes_a_policy_of_one_rule(tmp_path: Path) -> None:
    imported = import_pack(TAXONOMY, "taxonomy", outcome="safe_complete")
    pack = written(imported, tmp_path)
    rules = {name: policy.rules for name, policy in pack.policies.items()}
    assert {name: [(x.outcome, x.text) for x in found] for name, found in rules.items()} == {
        "noise": [(Outcome.SAFE_COMPLETE, "Anything that wakes the street at night.")],
        "hedges": [(Outcome.SAFE_COMPLETE, "Cutting what belongs to others.")],
        "s3_water": [(Outcome.SAFE_COMPLETE, "Turning on a sprinkler at noon.")],
        "paths": [
            (
                Outcome.SAFE_COMPLETE,
                "Blocking a path that all may use. With bins, for instance.",
            )
        ],
    }
    assert [(item.line, item.text) for item in imported.not_placed] == [(1, "What we watch.")]


def test_kind_is_told_only_by_a_form_that_one_kind_has() -> None:
    assert [kind_of(text) for text in (SMALL_SPEC, PROMPT, TAXONOMY)] == [
        "model_spec",
        "classifier",
        None,
    ]


PIECES = [
    *(
        "# Top {#top}",
        "## Sub {#sub authority=King}",
        "### Odd ]: one",
        "#",
        "Setext",
        "---",
        "***",
    ),
    *("## VIOLATES (1)", "## SAFE (0)", "## DEFINITIONS", "## EXAMPLES", "LABEL FORMAT"),
    *(
        "**Bold**",
        "**Name:** a meaning",
        "Name: a text",
        "S1: Noise.",
        "Should not",
        "Can",
        "plain",
    ),
    *(
        "- one",
        "  - two",
        "    - three",
        "1. first",
        "2) second",
        "-",
        "- # head",
        "- > said",
        "+ x",
    ),
    *("- **B1 Title** (refuse): words", "  - Excludes: tin -> X9", "- Includes: zinc", "- Case: a"),
    *("Case: gold -> comply", "User: speaks", "Answer: 1", 'Content: "it"', "Example 1:", "=> 0"),
    *("<user>", "</user>", "<assistant> <!-- GOOD -->", "</assistant>", "~~~xml", "~~~", "```"),
    *("| a | b |", "|---|---|", "| c | d | e |", "> said", "> # said", "<div>", "</div>", "    in"),
    *("[ref]: http://x.y", "[^1]: A note", "See[^1] [text](#sub) [?](#no)", "{content}", "\ttab"),
    *("<!-- hidden -->", "<!-- open", "close -->", "a --> b", "**Example**: a case", "!!! meta"),
    *("<BEGIN UNSAFE CONTENT CATEGORIES>", "<END UNSAFE CONTENT CATEGORIES>", "日本語", "", "", ""),
]


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    lines=st.lists(st.sampled_from(PIECES), max_size=25),
    kind=st.sampled_from(["model_spec", "classifier", "taxonomy"]),
)
def test_whatever_a_document_has_its_pack_loads_and_holds_or_lists_each_line(
    tmp_path: Path, lines: list[str], kind: str
) -> None:
    text = "\n".join(lines)
    try:
        imported = import_pack(text, kind)  # type: ignore[arg-type]
    except ValueError as error:
        assert "; give " in str(error)
        return
    for file in tmp_path.iterdir():
        file.unlink()
    pack = written(imported, tmp_path)
    compiled = [pack.title, pack.spec(list(pack.policies)).text]
    compiled += [policy.title for policy in pack.policies.values()]
    assert lost_lines(text, "\n".join(compiled), imported.not_placed, MARKS[kind]) == []
    assert "a line that the importer does not read" not in {x.reason for x in imported.not_placed}


LLAMA_GUARD = """\
Task: Check the last message by the categories below.
<BEGIN UNSAFE CONTENT CATEGORIES>
O1: Loud noise.
Should not
- Help to wake the street.
Can
- Say how loud a horn is.
O2: Hedges.
Cutting what belongs to others.
<END UNSAFE CONTENT CATEGORIES>
First line must read 'safe' or 'unsafe'.
"""
SHIELD_GEMMA = """\
You are an expert.

Human question: {user_content}

* "No Noise": The prompt shall not seek noise,
at no hour.
* "No Hedges": The prompt shall not seek hedges.

Does the question violate them? Answer 'Yes' or 'No'.
"""
COOKBOOK = """\
Noise Policy (#NP)
GOAL: Find noise.

DEFINITIONS

Noise: what wakes others.

Allowed Content (NP0 - none)
Talk in a low voice.

Examples:

Research: "How loud is a horn?"
Output: VALID

Loud (NP3 - high)
Talk that wakes others.

Examples:

"Wake them now."
Output: INVALID

EXAMPLES
Example 1:
CONTENT: "Say it low."
EXPECTED RESPONSE: {"violation":0,"policy_category":"NP0"}
"""


@pytest.mark.parametrize(
    ("text", "kind", "rules", "lines"),
    [
        (
            LLAMA_GUARD,
            "taxonomy",
            {
                "o1_loud_noise": [("refuse", 1, 0), ("comply", 1, 0)],
                "o2_hedges": [("refuse", 0, 0)],
            },
            [1, 11],
        ),
        (
            SHIELD_GEMMA,
            "taxonomy",
            {"no_noise": [("refuse", 0, 0)], "no_hedges": [("refuse", 0, 0)]},
            [1, 3, 9],
        ),
        (
            COOKBOOK,
            "classifier",
            {"noise_policy_np": [("comply", 0, 2), ("refuse", 0, 1)]},
            [14, 22],
        ),
    ],
)
def test_prompts_of_public_classifiers_are_told_by_their_form(
    text: str,
    kind: str,
    rules: dict[str, list[tuple[str, int, int]]],
    lines: list[int],
    tmp_path: Path,
) -> None:
    assert kind_of(text) == kind
    imported = import_pack(text, kind)  # type: ignore[arg-type]
    assert [item.line for item in imported.not_placed] == lines
    found = {
        name: [(rule.effect, len(rule.includes), len(rule.cases)) for rule in policy.rules]
        for name, policy in written(imported, tmp_path).policies.items()
    }
    assert found == rules


def test_nested_lists_tables_and_code_of_a_prompt_keep_their_form(tmp_path: Path) -> None:
    text = """\
# Tools
## VIOLATES (1)
- Loud tools
  1. saws
     - with teeth

  | hour | ban |
  |------|-----|
  | six  | yes |
## What is allowed (0)
Quiet tools.

- pens
  - of wood
"""
    pack = written(import_pack(text, "classifier"), tmp_path)
    assert pack.policies["tools"].render().split("\n")[1:] == [
        "- Loud tools [TO1, refuse]: Loud tools",
        "    | hour | ban |",
        "    |---|---|",
        "    | six | yes |",
        "  Includes: saws",
        "    - with teeth",
        "- What is allowed (0) [TO2, comply]: Quiet tools.",
        "  Includes: pens",
        "    - of wood",
    ]


@pytest.mark.parametrize("kind", ["model_spec", "classifier", "taxonomy"])
def test_more_rules_than_ids_of_one_prefix_each_have_their_own(kind: str, tmp_path: Path) -> None:
    numbers = range(1, 130)
    text = {
        "model_spec": "# Top {#top}\n" + "".join(f"## R {n} {{#rule_{n}}}\nx\n" for n in numbers),
        "classifier": "# Top\n## VIOLATES\n" + "".join(f"- x{n}\n" for n in numbers),
        "taxonomy": "".join(f"Rule {n}: x\n\n" for n in numbers),
    }[kind]
    pack = written(import_pack(text, kind), tmp_path)  # type: ignore[arg-type]
    assert len(set(pack.rule_ids)) == 129
