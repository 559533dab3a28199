"""A training → the memory of one of its workers, by part, before anything loads.

Weights and adapters are counted on the model's shape, and activations are what PyTorch keeps of a
forward pass of that shape for its backward pass. No number is allocated.
"""

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from tasks.engine.model_check import gpu_sizes
from tasks.engine.model_files import find_folder
from tasks.engine.requests import EngineConfig
from tasks.training.dpo import DpoConfig
from tasks.training.reward_model import RewardModelConfig
from tasks.training.rl import RlConfig
from tasks.training.sft import RowsConfig
from tasks.training.trainer import LoraConfig, TrainingConfig

_GIB = 2**30
_FLOAT32, _BFLOAT16 = 4, 2
_ADAMW = 2
"""Numbers that AdamW keeps of each one that is trained, in float32."""
_LOGITS = 6
"""Copies of the logits in float32 at the beginning of a backward pass: at most as many as TRL's
head keeps on a CPU, where they were counted."""
_TRL_SHARE = 0.3
"""TRL's own share of a GPU for the rollouts of vLLM."""
_PROMPT = 512
"""Tokens that a prompt of reinforcement learning is counted with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of one worker, in bytes; PyTorch's own GiB or so comes on top."""

    kept: Mapping[str, int]
    """By part, what it holds in every step: weights, adapters, gradients, optimiser, reference."""
    passing: Mapping[str, int]
    """By part, what a step adds at most, if all its rows are as long as they may be: activations,
    logits."""
    num_rows: int
    """Rows in one forward pass."""
    num_tokens: int
    """Tokens of the longest row."""

    @property
    def least(self) -> int:
        """Bytes without which the training cannot begin."""
        return sum(self.kept.values())

    @property
    def most(self) -> int:
        """Bytes of a step whose rows are all as long as they may be."""
        return self.least + sum(self.passing.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {_gib(size)}" for name, size in self.kept.items())
        more = ", ".join(f"{name} {_gib(size)}" for name, size in self.passing.items())
        return (
            f"{_gib(self.least)} GiB ({parts}), and up to {_gib(self.most)} with {self.num_rows} "
            f"rows of {self.num_tokens} tokens at once ({more})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The memory that one worker of a training finds here, in bytes."""

    size: int
    place: str
    """Whose memory it is, for sentences."""

    @classmethod
    def of(cls, config: TrainingConfig) -> "Room | None":
        """Returns the room of a worker; None if it will run elsewhere, or nothing here tells."""
        if os.environ.get("RAY_ADDRESS"):
            return None
        workers = config.workers
        if not workers.use_gpu:
            import psutil

            free = psutil.virtual_memory().available
            return cls(size=free // workers.num_workers, place="are free for each worker")
        sizes = gpu_sizes()
        if not sizes:
            return None
        size = int(min(sizes) * (workers.gpu_share - _rollout_share(config)))
        return cls(size=size, place=f"are a worker's of the {_gib(min(sizes))} GiB of a GPU")


def _rollout_share(config: TrainingConfig) -> float:
    """Returns the share of a GPU that vLLM keeps while the trainer steps: none if it sleeps."""
    arguments = config.workers.arguments
    if not (isinstance(config, RlConfig) and config.workers.use_vllm):
        return 0.0
    if arguments.get("vllm_enable_sleep_mode"):
        return 0.0
    return float(arguments.get("vllm_gpu_memory_utilization", _TRL_SHARE))


def check_memory(config: TrainingConfig, student: EngineConfig) -> str:
    """Returns, in words, what one worker of a training holds and the room that it finds.

    Raises ValueError if what it always holds does not fit.
    """
    memory, room = memory_of(config, student), Room.of(config)
    if room is None:
        return str(memory)
    if memory.least > room.size:
        raise ValueError(
            f"a worker holds {memory}, and {_gib(room.size)} GiB {room.place}; train adapters "
            "(lora, with dtype bfloat16), spread the weights over workers "
            "(workers.arguments.fsdp), or use a smaller model"
        )
    if memory.most > room.size:
        return (
            f"{memory}; {_gib(room.size)} GiB {room.place}: if it runs out, lower "
            "workers.rows_at_once"
        )
    return str(memory)


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f}" if size >= 0.1 * _GIB else f"{size / _GIB:.2f}"


def memory_of(config: TrainingConfig, student: EngineConfig) -> Memory:
    """Returns the memory of one worker of a training that begins from the student."""
    from transformers import AutoConfig

    # Its own look-up would ask Hugging Face several times, and tell nothing of what is wrong.
    shape = AutoConfig.from_pretrained(str(find_folder(student)))
    text = shape.get_text_config()
    workers = config.workers
    num_rows, num_tokens = _rows(config, getattr(text, "max_position_embeddings", None))
    all_weights, adapters = _count(shape, config.lora)
    trained = adapters or all_weights
    held = _BFLOAT16 if config.dtype == "bfloat16" else _FLOAT32
    computed = _BFLOAT16 if workers.computes_in_bf16() else held
    # Each worker of FSDP holds its part; the weights of a layer are gathered when it is their turn.
    parts = workers.num_workers if any(x.startswith("fsdp") for x in workers.arguments) else 1
    kept = {
        "weights": all_weights * held // parts,
        "adapters": adapters * _FLOAT32,
        "gradients": trained * _FLOAT32 // parts,
        "optimiser": trained * _FLOAT32 * _ADAMW // parts,
        # Without adapters a reference is a second model.
        "reference": 0 if adapters or not _has_reference(config) else all_weights * held // parts,
    }
    one_layer, around = _activations(shape, num_tokens, computed)
    num_layers = int(text.num_hidden_layers)
    between = num_tokens * int(text.hidden_size) * computed
    checkpoints = workers.arguments.get("gradient_checkpointing", workers.use_gpu)
    layers = num_layers * between + one_layer if checkpoints else num_layers * one_layer
    logits = num_tokens * int(text.vocab_size) * _FLOAT32 * _LOGITS
    passing = {
        "weights in bfloat16": all_weights * computed if computed < held else 0,
        "activations": num_rows * (layers + around),
        "logits": 0 if isinstance(config, RewardModelConfig) else num_rows * logits,
    }
    return Memory(
        kept={name: size for name, size in kept.items() if size},
        passing={name: size for name, size in passing.items() if size},
        num_rows=num_rows,
        num_tokens=num_tokens,
    )


def _rows(config: TrainingConfig, context: int | None) -> tuple[int, int]:
    """Returns the rows of a forward pass, and the tokens of the longest one."""
    at_once = config.workers.rows_at_once
    if isinstance(config, RlConfig):
        longest = config.max_tokens + _PROMPT
    else:
        longest = cast(DpoConfig | RewardModelConfig | RowsConfig, config).max_length
    is_paired = isinstance(config, DpoConfig | RewardModelConfig)
    return at_once * (2 if is_paired else 1), min(longest, context or longest)


def _has_reference(config: TrainingConfig) -> bool:
    return isinstance(config, DpoConfig) or (isinstance(config, RlConfig) and config.beta > 0)


def _shaped(shape: Any, **changes: Any) -> Any:
    """Returns a model of a shape that holds no numbers."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(shape, **changes)


def _count(shape: Any, lora: LoraConfig | None) -> tuple[int, int]:
    """Returns the number of weights, and of those of the adapters."""
    model = _shaped(shape)
    num_weights = sum(weights.numel() for weights in model.parameters())
    if lora is None:
        return num_weights, 0
    import peft

    adapted = peft.get_peft_model(model, lora.of_peft("CAUSAL_LM"))
    trained = sum(w.numel() for w in adapted.parameters() if w.requires_grad)
    return num_weights, trained


def _activations(shape: Any, num_tokens: int, num_bytes: int) -> tuple[int, int]:
    """Returns the bytes that a row of `num_tokens` leaves in one layer and around the layers,
    computed in a type of `num_bytes`; those of its logits are not among them."""
    one, two = (_saved(shape, num_layers, num_tokens, num_bytes) for num_layers in (1, 2))
    return two - one, max(0, 2 * one - two)


def _saved(shape: Any, num_layers: int, num_tokens: int, num_bytes: int) -> int:
    """Returns the bytes that autograd keeps of a row in a model of so many layers, without a head.

    Attention keeps its inputs and its output, as every fused kernel does.
    """
    import torch
    from transformers import AttentionInterface

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: torch.Tensor) -> torch.Tensor:
            output = torch.empty_like(inputs[0])
            ctx.save_for_backward(*inputs, output)
            return output

    def attend(module: Any, *inputs: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        query, key, value, *_mask = inputs
        output: torch.Tensor = Fused.apply(query, key, value)  # type: ignore[no-untyped-call]
        return output.transpose(1, 2), None

    AttentionInterface.register("fused", attend)
    small = copy.deepcopy(shape)
    text = small.get_text_config()
    text.num_hidden_layers = num_layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:num_layers]
    dtype = torch.float32 if num_bytes == _FLOAT32 else torch.bfloat16
    model = _shaped(small, dtype=dtype, attn_implementation="fused").base_model.train()
    weights = {w.untyped_storage()._cdata for w in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    ids = torch.zeros(1, num_tokens, dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=ids, use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())
