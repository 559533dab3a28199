"""What is wrong with a model is told by its own files, before anything is loaded."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tasks.engine import model_check
from tasks.engine.model_check import check_model
from tasks.engine.requests import EngineConfig
from tasks.paths import PROJECT

GIB = 2**30
Change = Callable[[Path], None]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the scale model."""
    return Path(shutil.copytree(PROJECT / "infra/harbour/model", tmp_path / "model"))


def config_of(folder: Path, **options: Any) -> EngineConfig:
    return EngineConfig(**{"model": str(folder), "use_gpu": False, **options})


def edit(name: str, **changes: Any) -> Change:
    """Returns a change of keys in a file of JSON; None takes a key away."""

    def change(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return change


def before_template(text: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / "chat_template.jinja"
        path.write_text(text + path.read_text())

    return change


def write(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content) and None


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Change:
    return lambda folder: write(name, (folder / name).read_bytes()[:-1])(folder)


def no_change(folder: Path) -> None: ...


FAULTS: list[tuple[Change, dict[str, Any], str]] = [
    (no_change, {"max_model_len": 2049}, "is 2049, and .* of 2048 tokens; set it to 2048"),
    (no_change, {"cpu_cache_gib": 10**6}, "takes 1000000.0 GiB of memory .*; lower cpu_cache_gib"),
    (no_change, {"replicas": 10**6}, "GiB of memory .* lower cpu_cache_gib or replicas"),
    (
        edit("config.json", max_position_embeddings=2**22),
        {},
        r"a context of 4194304 tokens .* takes 9\.0 GiB of cache, and cpu_cache_gib is 1; set it "
        "to 9, or max_model_len to 466033 or less",
    ),
    (no_change, {"reasoning_parser": "mistral"}, r"looks for token '\[THINK\]'"),
    (remove("config.json"), {}, "is no folder of a model, which holds config.json"),
    (write("config.json", b"{"), {}, r"config\.json cannot be read: .*; fetch the model again"),
    (write("config.json", b"[]"), {}, r"config\.json holds no settings"),
    (write("config.json", b"{}"), {}, "names no architecture"),
    (remove("model.safetensors"), {}, r"lacks weights \(model\.safetensors\)"),
    (cut("model.safetensors"), {}, r"model\.safetensors is no whole file of weights: .*; fetch it"),
    (write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"), {}, "no whole"),
    (
        write("model.safetensors.index.json", b'{"weight_map": {"a": "part-1.safetensors"}}'),
        {},
        r"lacks part-1\.safetensors, which its index lists",
    ),
    (remove("chat_template.jinja"), {}, "has no chat template; use a model that was tuned for"),
    (before_template("{{ raise_exception('no chats') }}"), {}, "the turns user: no chats; set"),
    (
        write("tokenizer.json", b"{"),
        {"reasoning_parser": "qwen3"},
        r"tokenizer\.json cannot be read: .*; fetch",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "options", "message"), FAULTS)
def test_model_that_cannot_be_served_is_told_in_one_sentence(
    model: Path, change: Change, options: dict[str, Any], message: str
) -> None:
    change(model)
    with pytest.raises(ValueError, match=message) as caught:
        check_model(config_of(model, **options))
    assert "\n" not in str(caught.value)


def test_context_that_is_not_set_is_the_models_own(model: Path) -> None:
    config = config_of(model)
    checked = check_model(config)
    assert checked.facts.context == 2048
    assert checked.in_words(config) == (
        "Qwen3ForCausalLM, context of 2048 tokens, weights of 3 MiB, "
        "calls of tools are written as text"
    )
    # A context that is stretched has no bound that the files tell.
    edit("config.json", rope_parameters={"rope_type": "yarn", "factor": 4.0})(model)
    assert check_model(config_of(model, max_model_len=8192)).facts.context is None


def test_a_large_model_in_a_type_that_the_cpu_imitates_is_called_slow(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("tasks.engine.model_files._LARGE", 2**20)
    bfloat16, float32 = config_of(model), config_of(model, dtype="float32")
    for capability, config, is_slow in (
        ("AVX2", bfloat16, True),
        ("AVX2", float32, False),
        ("AVX512", bfloat16, False),
    ):
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda told=capability: told)
        assert ("several times as fast" in check_model(config).in_words(config)) is is_slow


def test_cache_of_attention_that_is_not_plain_is_not_reckoned(model: Path) -> None:
    facts = check_model(config_of(model)).facts
    assert facts.cache_bytes(100, dtype="bfloat16") == 100 * 2 * 3 * 3 * 64 * 2
    for changes in (
        {"layer_types": ["full_attention", "linear_attention"]},
        {"kv_lora_rank": 512},
        {"sliding_window": 128},
        {"num_attention_heads": None},
    ):
        edit("config.json", **changes)(model)
        assert check_model(config_of(model)).facts.cache_bytes(100, dtype="bfloat16") is None
        shutil.copy(PROJECT / "infra/harbour/model/config.json", model)


def test_weights_are_as_large_as_the_engine_holds_them(model: Path) -> None:
    facts = check_model(config_of(model)).facts
    assert facts.weights_bytes("float32") == 2 * facts.weights_bytes("bfloat16")
    assert facts.weights_bytes("auto") == facts.num_bytes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        (
            "{%- if messages[0]['role']=='system' %}{{ raise_exception('x') }}{% endif %}",
            "system text is put before the first user turn",
        ),
        (
            "{% for m in messages %}"
            "{% if loop.index0 and m.role == messages[loop.index0 - 1].role %}"
            "{{ raise_exception('x') }}{% endif %}{% endfor %}{% generation %}{% endgeneration %}",
            "turns of one role in a row are joined",
        ),
    ],
)
def test_turns_that_a_template_cannot_write_are_found_in_its_file(
    model: Path, text: str, words: str
) -> None:
    before_template(text)(model)
    told = str(check_model(config_of(model)).turns)
    assert told == ", ".join(filter(None, [words, "calls of tools are written as text"]))


@pytest.mark.parametrize(
    "change",
    [
        lambda template: edit("tokenizer_config.json", chat_template=template),
        lambda template: edit(
            "tokenizer_config.json", chat_template=[{"name": "default", "template": template}]
        ),
    ],
)
def test_template_is_read_where_transformers_reads_it(
    model: Path, change: Callable[[str], Change]
) -> None:
    path = model / "chat_template.jinja"
    template = "{{ raise_exception('x') if messages[0].role == 'system' }}" + path.read_text()
    path.unlink()
    change(template)(model)
    assert not check_model(config_of(model)).turns.takes_system


def test_options_and_special_tokens_reach_the_template(model: Path) -> None:
    refuses = "{{ raise_exception('x') if eos_token != '<|im_end|>' or not fine }}"
    before_template(refuses)(model)
    check_model(config_of(model, chat_template_kwargs={"fine": True}))
    with pytest.raises(ValueError, match="cannot write the turns"):
        check_model(config_of(model))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/b/c", "no model at 'a/b/c' .*; give a local folder, or an id of Hugging Face"),
        ("/no/where", "no model at '/no/where'"),
        ("org/model", "nor whole in Hugging Face's cache, and .* cannot be asked .HF_HUB_OFFLINE"),
    ],
)
def test_model_that_is_not_here_is_told_without_a_network(
    monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=message):
        check_model(EngineConfig(model=name, use_gpu=False))


def test_model_in_the_cache_of_hugging_face_is_read_from_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = "0" * 40
    cached = tmp_path / "hub/models--org--model/snapshots" / revision
    shutil.copytree(model, cached)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = EngineConfig(model="org/model", revision=revision, use_gpu=False)
    assert check_model(config).facts.folder == cached
    with pytest.raises(ValueError, match="is 4096, and org/model has a context of 2048 tokens"):
        check_model(config.model_copy(update={"max_model_len": 4096}))
    (cached / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="nor whole in Hugging Face's cache"):
        check_model(config)


def test_sizes_are_left_to_the_cluster_that_a_run_joins(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    check_model(config_of(model, replicas=10**6))
    check_model(config_of(model, use_gpu=True))


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ([], {}, "this machine has no GPU; set use_gpu = false"),
        ([80 * GIB], {"tensor_parallel_size": 2}, "is 2 and this machine has 1 GPUs"),
        ([GIB], {"gpu_memory_utilization": 0.001}, "gpu_memory_utilization leaves it 0.0 of 1.0"),
        ([GIB], {}, None),
    ],
)
def test_gpu_that_is_too_small_is_told(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    sizes: list[int],
    options: dict[str, Any],
    message: str | None,
) -> None:
    monkeypatch.setattr(model_check, "gpu_sizes", lambda: sizes)
    monkeypatch.setattr(model_check, "_GPU_DEVICES", ())
    config = config_of(model, use_gpu=True, **options)
    if message is None:
        check_model(config)
    else:
        with pytest.raises(ValueError, match=re.escape(message)):
            check_model(config)


def test_engine_reserves_its_share_of_a_gpu_and_of_its_memory() -> None:
    half = EngineConfig(gpu_share=0.5, gpu_memory_utilization=0.8, replicas=2)
    assert half.resources == {"CPU": 1.0, "GPU": 0.5}
    assert (half.num_gpus, half.memory_share) == (1.0, 0.4)
    with pytest.raises(ValueError, match=r"is 0\.5 and tensor_parallel_size 2"):
        EngineConfig(gpu_share=0.5, tensor_parallel_size=2)


def test_check_imports_nothing_heavy(model: Path) -> None:
    import subprocess

    code = (
        "import sys; from tasks.engine.model_check import check_model;"
        "from tasks.engine.requests import EngineConfig;"
        f"check_model(EngineConfig(model={str(model)!r}, use_gpu=False, reasoning_parser='qwen3'));"
        "assert not {'vllm', 'torch', 'transformers', 'ray'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)
