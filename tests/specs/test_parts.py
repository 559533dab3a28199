"""The parts of a compiled spec are those that the pack was compiled from."""

import dataclasses

from specs.pack import load_pack
from specs.parts import Change, changes, parts, rule_text
from specs.policy import Pack, Rule

PACK = load_pack("specs/harbour")


def edited(rule_id: str, text: str) -> Pack:
    """The pack with another text for one rule of boats."""

    def turned(rule: Rule) -> Rule:
        return dataclasses.replace(rule, text=text) if rule.id == rule_id else rule

    boats = PACK.policies["boats"]
    boats = dataclasses.replace(boats, rules=tuple(turned(rule) for rule in boats.rules))
    return dataclasses.replace(PACK, policies={**PACK.policies, "boats": boats})


def test_parts_hold_every_rule_and_every_line_of_a_spec() -> None:
    spec = PACK.spec(["boats", "fish"])
    found = parts(spec.text)
    assert {f"rule {name}" for name in spec.rule_ids} == {
        part for _, part in found if part.startswith("rule")
    }
    assert found["boats", "rule B3"] == PACK.rule("B3").render()
    assert ("gates", "summary") in found and ("gates", "rule G1") not in found
    headings = {line for line in spec.text.split("\n") if line.startswith("# ")}
    kept = "\n".join(found.values()).split("\n")
    assert set(kept) | headings == set(spec.text.split("\n"))


def test_rule_is_found_with_its_category_and_its_further_lines() -> None:
    boats = PACK.policies["boats"]
    ferry = dataclasses.replace(boats.rules[0], includes=("a raft\n  of logs",))
    pack = dataclasses.replace(
        PACK,
        policies={
            "boats": dataclasses.replace(boats, rules=(ferry, *boats.rules[1:]), style="Be brief.")
        },
    )
    text = pack.spec(["boats"]).text
    assert rule_text(text, "B1") == ("boats", ferry.render())
    assert rule_text(text, "B9") == ("boats", boats.rules[-1].render())
    assert rule_text(text, "K3") is None


def test_edited_rule_is_named_with_both_texts() -> None:
    before = [PACK.spec([name]).text for name in ("boats", "fish")]
    after = [edited("B3", "raft is fine").spec([name]).text for name in ("boats", "fish")]
    [change] = changes(before, after)
    assert change == Change(
        category="boats",
        part="rule B3",
        change="edited",
        before="- raft [B3, refuse]: raft is stolen",
        after="- raft [B3, refuse]: raft is fine",
    )
    assert changes(before, before) == []


def test_category_without_prompts_in_one_run_is_no_edit_of_its_rules() -> None:
    both, one = [PACK.spec(["boats"]).text, PACK.spec(["fish"]).text], [PACK.spec(["fish"]).text]
    assert [(c.category, c.part, c.change) for c in changes(both, one)] == [
        ("boats", "policy", "only in A")
    ]
    assert [(c.category, c.part, c.change) for c in changes(one, both)] == [
        ("boats", "policy", "only in B")
    ]


def test_change_of_what_all_share_is_told_once() -> None:
    other = dataclasses.replace(PACK, principles="Be kind.")
    names = list(PACK.policies)
    found = changes([PACK.spec([n]).text for n in names], [other.spec([n]).text for n in names])
    assert [(c.category, c.part, c.change) for c in found] == [
        ("all policies", "principles", "edited")
    ]
