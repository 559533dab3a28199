"""A model of random weights replies in form, whatever its architecture and its marks."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.engine.random_weights import PUBLISHED, TOKENIZER, shape_of, shrunk, write_model
from tasks.engine.requests import EngineConfig


@pytest.mark.parametrize(
    ("model", "settings", "reply"),
    [
        ("Qwen/Qwen3-8B", {}, "<think>weighed</think>Score: 9<|im_end|>"),
        ("openai/gpt-oss-20b", {}, "<think>weighed</think>Score: 9<|im_end|>"),
        (".precept-real/smollm2", {}, "<think>weighed</think>Score: 9<|im_end|>"),
        (
            "Qwen/Qwen3-8B",
            {"reasoning_parser": "mistral"},
            "[THINK]weighed[/THINK]Score: 9<|im_end|>",
        ),
        ("Qwen/Qwen3-8B", {"reasons": False}, "Score: 9<|im_end|>"),
    ],
)
def test_random_weights_continue_a_reply_in_form(
    model: str, settings: dict[str, Any], reply: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    engine = EngineConfig(model=model, **settings)
    shape = shape_of(engine)
    write_model(tmp_path / "m", shrunk(shape), engine=engine)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert type(written.config) is type(shape) and written.config.num_hidden_layers == 2
    chat = [{"role": "user", "content": "May I take the ferry?"}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    whole = written.generate(**prompt, max_new_tokens=40, do_sample=False)[0]
    assert tokenizer.decode(whole[prompt["input_ids"].shape[1] :]) == reply


def test_text_that_is_held_to_another_form_never_runs_into_the_reply_again(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    engine = EngineConfig(model="Qwen/Qwen3-8B")
    write_model(tmp_path / "m", shrunk(shape_of(engine)), engine=engine)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    prompt = tokenizer("May I?<|im_end|>\n<|im_start|>assistant\n", return_tensors="pt")
    torch.manual_seed(0)
    # An engine that holds a reply to a form forbids its end.
    replies = written.generate(
        **prompt,
        max_new_tokens=200,
        do_sample=True,
        num_return_sequences=32,
        suppress_tokens=[tokenizer.eos_token_id],
    )
    for text in tokenizer.batch_decode(replies[:, prompt["input_ids"].shape[1] :]):
        assert text.startswith("<think>weighed</think>Score: 9")
        assert (text.count("<think>"), text.count("</think>")) == (1, 1)


def test_published_shapes_have_the_weights_that_their_names_say() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    billions = {"Qwen/Qwen3-8B": 8.19, "Qwen/Qwen3-32B": 32.76, "openai/gpt-oss-20b": 20.91}
    for model, expected in billions.items():
        assert model in PUBLISHED
        with torch.device("meta"):
            shaped = AutoModelForCausalLM.from_config(shape_of(EngineConfig(model=model)))
        assert sum(w.numel() for w in shaped.parameters()) / 1e9 == pytest.approx(
            expected, abs=0.01
        )


def test_reply_follows_what_the_chat_template_has_opened_or_closed(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for number, (ending, expected) in enumerate(
        {"<think>": ["weighed", "</think>"], "<think></think>": ["Score"]}.items()
    ):
        folder = tmp_path / str(number)
        tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
        tokenizer.chat_template = f"{{{{ messages[0].content }}}} assistant: {ending}"
        tokenizer.save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        written = tmp_path / f"{number}-written"
        engine = EngineConfig(model=str(folder))
        write_model(written, shrunk(shape_of(engine)), engine=engine)
        assert continuation(written, f"May I? assistant: {ending}").startswith("".join(expected))


def continuation(folder: Path, prompt: str) -> str:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    whole = model.generate(**ids, max_new_tokens=12, do_sample=False)[0]
    return str(tokenizer.decode(whole[ids["input_ids"].shape[1] :]))


def test_part_of_a_model_that_is_half_written_is_no_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from transformers import PreTrainedTokenizerBase

    def full(*arguments: Any, **settings: Any) -> None:
        raise OSError("no space left on device")

    engine = EngineConfig(model="Qwen/Qwen3-8B")
    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedTokenizerBase, "save_pretrained", full)
        with pytest.raises(OSError, match="no space left"):
            write_model(tmp_path / "model", shrunk(shape_of(engine)), engine=engine)
    assert not (tmp_path / "model").exists()
    write_model(tmp_path / "model", shrunk(shape_of(engine)), engine=engine)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_text_model_of_a_model_of_images_is_taken_alone(tmp_path: Path) -> None:
    config = {"model_type": "gemma3", "text_config": {"hidden_size": 640, "num_hidden_layers": 9}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = shape_of(EngineConfig(model=str(tmp_path)))
    assert (shape.model_type, shape.hidden_size) == ("gemma3_text", 640)
    small = shrunk(shape)
    assert (small.hidden_size, small.num_hidden_layers) == (128, 2)
    assert small.max_position_embeddings >= 16384


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "granite", "logits_scaling": 16.0},
        {"model_type": "cohere2", "logit_scale": 0.0625},
        {
            "model_type": "phi3",
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0] * 48,
                "long_factor": [2.0] * 48,
            },
            "hidden_size": 3072,
            "num_attention_heads": 32,
            "original_max_position_embeddings": 4096,
            "max_position_embeddings": 131072,
        },
    ],
)
def test_other_architectures_reply_in_form_as_well(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    engine = EngineConfig(model=str(tmp_path))
    write_model(tmp_path / "m", shrunk(shape_of(engine)), engine=engine)
    prompt = "<|im_start|>user\nMay I?<|im_end|>\n<|im_start|>assistant\n"
    assert continuation(tmp_path / "m", prompt).startswith("<think>weighed</think>Score: 9")


def test_architecture_that_cannot_be_made_small_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3n_text"}))
    shape = shape_of(EngineConfig(model=str(tmp_path)))
    shape.activation_sparsity_pattern = [0.5] * 7
    with pytest.raises(ValueError, match="gemma3n_text cannot be made small"):
        shrunk(shape)


def test_folder_that_is_no_model_is_refused_though_its_name_is_published(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "openai" / "gpt-oss-20b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is no folder of a model"):
        shape_of(EngineConfig(model="openai/gpt-oss-20b"))


def test_model_whose_shape_is_not_known_is_refused_and_not_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import socket

    def asked(*arguments: Any, **settings: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    with pytest.raises(ValueError, match=r"neither a local folder nor in Hugging Face's cache"):
        shape_of(EngineConfig(model="nobody/has-this"))
