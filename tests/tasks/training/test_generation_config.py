"""Generation configurations of base models, with which a trained model must be saved."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.paths import PROJECT
from tasks.training.generation_config import (
    GenerationConfigError,
    make_savable,
    require_loadable,
)

TOKENS = {"eos_token_id": [2, 7], "pad_token_id": 0}
SAMPLING = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1}


@pytest.mark.parametrize(
    ("given", "saved"),
    [
        (SAMPLING | {"do_sample": False}, SAMPLING | {"do_sample": True}),
        ({"temperature": 0.6}, {"temperature": 0.6, "do_sample": True}),
        (
            {"num_beams": 1, "early_stopping": True, "length_penalty": 2.0, "do_sample": False},
            {"num_beams": 1, "do_sample": False},
        ),
        ({"num_beams": 4, "early_stopping": True}, {"num_beams": 4, "early_stopping": True}),
        (
            {"temperature": 0.6, "early_stopping": True, "repetition_penalty": 1.1},
            {"temperature": 0.6, "do_sample": True, "repetition_penalty": 1.1},
        ),
        ({"use_cache": False, "cache_implementation": "static"}, {"use_cache": False}),
        ({"output_scores": True, "max_new_tokens": 9}, {"max_new_tokens": 9}),
        ({"pad_token_id": -1}, {"pad_token_id": None}),
        (SAMPLING | {"do_sample": True}, SAMPLING | {"do_sample": True}),
        ({"do_sample": False}, {"do_sample": False}),
    ],
)
def test_settings_that_contradict_each_other_are_saved_with_as_little_change_as_it_takes(
    tmp_path: Path, given: dict[str, Any], saved: dict[str, Any]
) -> None:
    from transformers import GenerationConfig

    config = GenerationConfig(**(TOKENS | given))
    make_savable(config)
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "generation_config.json").read_text())
    wanted = {name: value for name, value in (TOKENS | saved).items() if value is not None}
    assert {name: written.get(name) for name in wanted} == wanted
    assert written.keys() - {"transformers_version", "_from_model_config"} == wanted.keys()


def shipped(folder: Path, **changes: Any) -> str:
    """A copy of the scale model whose generation configuration is changed."""
    model = folder / "model"
    shutil.copytree(PROJECT / "infra" / "harbour" / "model", model)
    file = model / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return str(model)


def test_model_that_ships_sampling_beside_greedy_is_saved_whole(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = shipped(tmp_path, do_sample=False, **SAMPLING)
    require_loadable(model, None)
    loaded = AutoModelForCausalLM.from_pretrained(model)
    with pytest.raises(ValueError, match="Fix these issues to save"):
        loaded.save_pretrained(tmp_path / "unsaved")
    make_savable(loaded.generation_config)
    loaded.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").generation_config
    assert (again.do_sample, again.temperature, again.top_k) == (True, 0.6, 20)
    assert (again.eos_token_id, again.pad_token_id) == (2, 0)


def test_generation_configuration_that_no_model_loads_with_is_refused_by_its_file(
    tmp_path: Path,
) -> None:
    model = shipped(tmp_path, early_stopping="soon")
    with pytest.raises(
        GenerationConfigError,
        match=r"model/generation_config.json cannot be used: `early_stopping` must be a boolean",
    ):
        require_loadable(model, None)
    (Path(model) / "generation_config.json").unlink()
    require_loadable(model, None)
