"""A model of random weights replies in form, whatever its architecture and its marks."""

from pathlib import Path

import pytest

from tasks.engine.random_weights import PUBLISHED, shape_of, shrunk, write_model
from tasks.engine.requests import EngineConfig


@pytest.mark.parametrize(
    ("model", "parser", "reply"),
    [
        ("Qwen/Qwen3-8B", None, "<think>weighed</think>Score: 9<|im_end|>"),
        ("openai/gpt-oss-20b", None, "<think>weighed</think>Score: 9<|im_end|>"),
        (".precept-real/smollm2", None, "<think>weighed</think>Score: 9<|im_end|>"),
        ("Qwen/Qwen3-8B", "mistral", "[THINK]weighed[/THINK]Score: 9<|im_end|>"),
    ],
)
def test_random_weights_continue_a_reply_in_form(
    model: str, parser: str | None, reply: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    engine = EngineConfig(model=model, reasoning_parser=parser)
    shape = shape_of(engine)
    write_model(tmp_path, shrunk(shape), engine=engine)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    written = AutoModelForCausalLM.from_pretrained(tmp_path)
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
    write_model(tmp_path, shrunk(shape_of(engine)), engine=engine)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    written = AutoModelForCausalLM.from_pretrained(tmp_path)
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


def test_model_whose_shape_is_not_known_here_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="neither a local folder nor whole"):
        shape_of(EngineConfig(model="nobody/has-this"))
