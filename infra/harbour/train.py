"""Trains the scale model from random weights, and writes it with its figures.

    python -m infra.harbour.train --out infra/harbour/model

Training is seeded and takes under 90 minutes on two CPU cores. A warm-up on copying alone lasts
until the loss collapses and the model can look things up in its context. Chats from the corpus
follow, with a curriculum from two rules per policy to all nine. `figures.json` tells how it was
trained, and what `measure` finds of the finished model.
"""

import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from infra.harbour import measure
from infra.harbour.corpus import Corpus, Segment, vocabulary
from infra.harbour.world import PACK
from specs.pack import load_pack
from specs.policy import Pack
from specs.replies import CLOSE_TAG, OPEN_TAG

CONTEXT_LENGTH = 2048
COPY_SHARE = 0.1
"""Share of the steps after the warm-up that train copying."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.role == 'assistant' and message.reasoning_content and loop.last -%}"
    "{{ '<think>' + message.reasoning_content + '</think>' }}"
    "{%- endif -%}"
    "{{ message.content + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
_WORDS = (
    r" ?[0-9a-f]{2}(?=(?:[0-9a-f]{2})*(?!\w))| ?[A-Z]\d(?!\w)"
    r"| ?[A-Za-z_]+| ?\d| ?[^\sA-Za-z0-9]+|\s+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Batch size and peak learning rates."""

    num_sequences: int = 16
    """Chats in a batch."""
    peak_muon: float = 0.02
    peak_adamw: float = 3e-3


def train_tokenizer(pack: Pack, *, seed: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE in which each word of Harbour is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=4,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(vocabulary(Corpus(pack, random.Random(seed))), trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in (OPEN_TAG, CLOSE_TAG)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Returns a Qwen3 model of random weights, with few layers and large heads."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=CONTEXT_LENGTH,
        initializer_range=0.05,
        tie_word_embeddings=True,
        use_cache=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


class Batch(NamedTuple):
    """Token ids and labels, both of shape [sequences, tokens]; a label of -100 is not learned."""

    ids: torch.Tensor
    labels: torch.Tensor


def copying(
    rng: torch.Generator, vocab_size: int, *, num_sequences: int, num_chunks: int, chunk: int = 4
) -> Batch:
    """Returns chunks of random tokens, followed by the same chunks in another order.

    The order of the chunks is random, so the first token of each is not learned.
    """
    first = torch.randint(260, vocab_size, (num_sequences, num_chunks, chunk), generator=rng)
    order = torch.rand(num_sequences, num_chunks, generator=rng).argsort(1)
    second = first.gather(1, order[..., None].expand_as(first))
    labels = second.clone()
    labels[:, :, 0] = -100
    ids = torch.cat([first.flatten(1), second.flatten(1)], 1)
    masked = torch.cat([torch.full_like(first, -100).flatten(1), labels.flatten(1)], 1)
    return Batch(ids, masked)


def collate(chats: Sequence[list[Segment]], tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Returns chats as one batch, padded on the right and cut to CONTEXT_LENGTH."""
    rows = []
    for segments in chats:
        encoded = [tokenizer(part.text, add_special_tokens=False).input_ids for part in segments]
        ids = [token for tokens in encoded for token in tokens]
        labels = [
            token if segment.learned else -100
            for segment, tokens in zip(segments, encoded, strict=True)
            for token in tokens
        ]
        rows.append((ids[:CONTEXT_LENGTH], labels[:CONTEXT_LENGTH]))
    width = max(len(ids) for ids, _ in rows)
    pad = tokenizer.pad_token_id
    padded = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])
    learned = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in rows])
    return Batch(padded, learned)


def draw_batches(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, num_sequences: int
) -> list[Batch]:
    """Draws four batches, in random order; chats of similar length share one, to save padding."""
    chats = sorted(
        (corpus.draw() for _ in range(4 * num_sequences)),
        key=lambda segments: sum(len(segment.text) for segment in segments),
    )
    batches = [
        collate(chats[start : start + num_sequences], tokenizer)
        for start in range(0, len(chats), num_sequences)
    ]
    corpus.rng.shuffle(batches)
    return batches


def loss_of(model: Qwen3ForCausalLM, batch: Batch) -> torch.Tensor:
    """Returns the mean cross-entropy of the learned tokens; the head runs on those only."""
    ids, labels = batch
    device = next(model.parameters()).device
    ids, labels = ids.to(device), labels.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        targets = labels[:, 1:]
        is_learned = targets != -100
        logits = model.lm_head(hidden[is_learned])
    return torch.nn.functional.cross_entropy(logits.float(), targets[is_learned])


class Optimizers:
    """Muon for the matrices, and AdamW for embeddings and norms."""

    def __init__(self, model: Qwen3ForCausalLM, schedule: Schedule) -> None:
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        rest = [p for name, p in named if p.ndim != 2 or "embed" in name]
        self.muon = torch.optim.Muon(
            matrices,
            lr=schedule.peak_muon,
            momentum=0.95,
            weight_decay=0.0,
            adjust_lr_fn="original",
        )
        self.adamw = torch.optim.AdamW(
            rest, lr=schedule.peak_adamw, betas=(0.9, 0.95), weight_decay=0.0
        )
        self.parameters = [p for _, p in named]
        self.schedule = schedule

    def step(self, loss: torch.Tensor, *, share: float) -> None:
        """Updates the weights at `share` of the peak learning rates."""
        self.muon.zero_grad(set_to_none=True)
        self.adamw.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.muon.param_groups[0]["lr"] = self.schedule.peak_muon * share
        self.adamw.param_groups[0]["lr"] = self.schedule.peak_adamw * share
        self.muon.step()  # type: ignore[no-untyped-call]
        self.adamw.step()


def warm_up(
    model: Qwen3ForCausalLM, optimizers: Optimizers, rng: torch.Generator, *, max_steps: int = 6000
) -> int:
    """Trains copying until the smoothed loss is below 0.15; returns the number of steps."""
    vocab_size = model.config.vocab_size
    loss_average = math.log(vocab_size)
    for num_steps in range(1, max_steps + 1):
        batch = copying(rng, vocab_size, num_sequences=128, num_chunks=3)
        loss = loss_of(model, batch)
        optimizers.step(loss, share=min(1.0, num_steps / 50))
        loss_average += 0.05 * (loss.item() - loss_average)
        if num_steps % 100 == 0:
            typer.echo(f"warm-up {num_steps} loss {loss.item():.3f}", err=True)
        if loss_average < 0.15:
            return num_steps
    return max_steps


def num_rules_at(progress: float) -> tuple[int, int]:
    """Returns the fewest and most rules per policy at a share of the training, from 0 to 1."""
    most = 2 + round(7 * min(1.0, progress / 0.2))
    return (min(2 + round(7 * min(1.0, progress / 0.5)), most), most)


@dataclass(slots=True)
class Batches:
    """Draws the batches after the warm-up: mostly chats, and a share of copying."""

    corpus: Corpus
    tokenizer: PreTrainedTokenizerFast
    generator: torch.Generator
    """Source of the batches of copying."""
    num_sequences: int
    """Chats in a batch."""
    has_curriculum: bool
    """False draws policies of all nine rules from the start."""
    _drawn: list[Batch] = field(default_factory=list, init=False)

    def draw(self, progress: float) -> Batch:
        """Draws the next batch at a share of the training."""
        rng = self.corpus.rng
        if rng.random() < COPY_SHARE:
            return copying(self.generator, len(self.tokenizer), num_sequences=64, num_chunks=16)
        if not self._drawn:
            bounds = num_rules_at(progress if self.has_curriculum else 1.0)
            self.corpus.num_rules = rng.randint(*bounds)
            self._drawn = draw_batches(self.corpus, self.tokenizer, self.num_sequences)
        return self._drawn.pop()


@dataclass(frozen=True, slots=True)
class Step:
    """The state of training after a step."""

    num_steps: int
    num_tokens: int
    """Tokens of all steps so far, padding included."""
    loss: float
    """Exponential moving average."""
    progress: float
    """Share of the training that was done when the step began."""
    seconds: float
    """Time from the end of the warm-up to the beginning of the step."""


def train(
    model: Qwen3ForCausalLM,
    optimizers: Optimizers,
    batches: Batches,
    *,
    max_steps: int,
    max_seconds: float,
) -> Iterator[Step]:
    """Trains on chats and copying until either limit is reached; yields every step."""
    began = time.monotonic()
    loss_average, num_tokens = 0.0, 0
    for step in range(max_steps):
        seconds = time.monotonic() - began
        progress = max(step / max_steps, seconds / max_seconds)
        if progress >= 1:
            return
        batch = batches.draw(progress)
        loss = loss_of(model, batch)
        # A short rise, a plateau, then linear to zero over the last 40 %.
        share = min(1.0, (step + 1) / 50, max(0.0, (1 - progress) / 0.4))
        optimizers.step(loss, share=share)
        num_tokens += batch.ids.numel()
        value = loss.item()
        loss_average = value if step == 0 else loss_average + 0.02 * (value - loss_average)
        yield Step(step + 1, num_tokens, loss_average, progress, seconds)


def print_step(step: Step) -> None:
    """Prints the state of training to stderr."""
    typer.echo(
        f"step {step.num_steps} loss {step.loss:.4f} rules {num_rules_at(step.progress)} "
        f"{step.num_tokens / max(1.0, step.seconds):,.0f} tokens/s {step.seconds:.0f} s",
        err=True,
    )


def load_or_make(
    start_from: Path | None, pack: Pack, *, seed: int
) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Returns the model and the tokenizer to train: those in a folder, or new ones."""
    if start_from:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(start_from)
        model = Qwen3ForCausalLM.from_pretrained(start_from, dtype=torch.float32)
    else:
        tokenizer = train_tokenizer(pack, seed=seed)
        model = new_model(tokenizer)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device), tokenizer


def main(
    out: Annotated[Path, typer.Option(help="Folder for weights, tokenizer and figures.")],
    minutes: Annotated[float, typer.Option(help="Longest training time, in minutes.")] = 75.0,
    max_steps: Annotated[int, typer.Option(help="Most steps after the warm-up.")] = 6000,
    seed: Annotated[int, typer.Option(help="Seed of weights, corpus and sampling.")] = 1,
    start_from: Annotated[
        Path | None, typer.Option(help="Model to go on from, without warm-up and curriculum.")
    ] = None,
) -> None:
    """Trains the scale model of Harbour."""
    started = time.monotonic()
    torch.manual_seed(seed)
    schedule, pack = Schedule(), load_pack(PACK)
    model, tokenizer = load_or_make(start_from, pack, seed=seed)
    num_parameters = sum(p.numel() for p in model.parameters())
    typer.echo(f"{num_parameters:,} parameters, {len(tokenizer)} tokens", err=True)
    optimizers = Optimizers(model, schedule)
    generator = torch.Generator().manual_seed(seed)
    warm_up_steps = 0 if start_from else warm_up(model, optimizers, generator)
    left = minutes * 60 - (time.monotonic() - started)
    typer.echo(f"warm-up {warm_up_steps} steps, {minutes * 60 - left:.0f} s", err=True)

    corpus = Corpus(pack, random.Random(seed))
    batches = Batches(corpus, tokenizer, generator, schedule.num_sequences, start_from is None)
    step = Step(0, 0, 0.0, 0.0, 0.0)
    for step in train(model, optimizers, batches, max_steps=max_steps, max_seconds=left):
        if step.num_steps % 50 == 1:
            print_step(step)
        if step.num_steps % 250 == 0:
            save(model, tokenizer, out)
    save(model, tokenizer, out)
    figures = {
        "seed": seed,
        "started_from": start_from.name if start_from else "random weights",
        "num_parameters": num_parameters,
        "vocabulary": len(tokenizer),
        "warm_up_steps": warm_up_steps,
        "steps": step.num_steps,
        "tokens": step.num_tokens,
        "seconds": round(time.monotonic() - started),
        "device": model.device.type,
        "loss": round(step.loss, 4),
    }
    (out / "figures.json").write_text(json.dumps(figures) + "\n")
    measure.main(out, seed=seed + 1)


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes a model folder as Hugging Face's libraries read it; the weights are in bfloat16."""
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    state = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    state.pop("lm_head.weight", None)
    model.save_pretrained(out, state_dict=state)
    config = json.loads((out / "config.json").read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = "bfloat16"
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    typer.run(main)
