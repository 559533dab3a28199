"""Replies that cannot be used are counted with their reasons, and never read as a pack in order."""

from pathlib import Path
from typing import Any

import pytest

from flows.policy_trial import told_by
from specs.pack import load_pack
from tests.rows import completion, prompt
from tests.specs.town import write_pack
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import COMPLETIONS, PROMPTS


def told(tmp_path: Path, *completions: Any) -> Any:
    home = Home(str(tmp_path / "home"))
    folder = write_pack(tmp_path / "town")
    spec_id = load_pack(folder).spec(["boats"]).id
    asked = prompt("May I raft home?", source="case B2")
    write_shard(home, PROMPTS, [asked])
    fields = {"prompt_id": asked.prompt_id, "spec_id": spec_id}
    rows = [
        completion(f"c{n}", sample_index=n, **fields, **more) for n, more in enumerate(completions)
    ]
    write_shard(home, COMPLETIONS, rows)
    return told_by(home, str(folder), model="judge@1", asked=2)


TOO_LONG = {"status": "truncated", "reason": "the spec leaves no room"}


def test_a_model_without_a_reply_that_can_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no reply of judge@1 to 2 .*\(the spec leaves no room: 2\)"
    ):
        told(tmp_path, TOO_LONG, TOO_LONG)


def test_samples_that_cannot_be_used_are_counted_beside_the_findings(tmp_path: Path) -> None:
    tried = told(tmp_path, TOO_LONG, {"reasoning": "By rule B1 the skiff is safe. So I comply."})
    assert (tried.num_samples, tried.num_unread) == (1, 1)
    assert tried.unread == {"the spec leaves no room": 1}
    [placed] = tried.doubts
    assert (placed.doubt.kind, placed.doubt.rules) == ("idle", ("B2",))
    assert placed.place == f"{tmp_path}/town/boats.md:24"
