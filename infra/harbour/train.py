"""Trains the scale model from random weights and writes it with its own figures.

    python -m infra.harbour.train --out infra/harbour/model

Seeded; under 90 minutes on two CPU cores. First a warm-up on nothing but copying, until the loss
collapses and the model can look things up in its context; then chats from the corpus, with a
curriculum from two rules a policy to all nine. `figures.json` holds what the finished model
reaches on policies that it never saw, sampled as the recipe samples.
"""

import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from infra.harbour import measure
from infra.harbour.corpus import Corpus, Turn, vocabulary
from specs.pack import load_pack
from specs.policy import Pack
from specs.replies import CLOSE_TAG, OPEN_TAG

PACK = Path(__file__).parents[2] / "specs" / "harbour"
CONTEXT_LENGTH = 2048
COPY_SHARE = 0.1
"""The share of steps after the warm-up that stays copying."""

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
    """Size of a batch and peak learning rates."""

    num_sequences: int = 16
    peak_muon: float = 0.02
    peak_adamw: float = 3e-3


def train_tokenizer(pack: Pack, *, seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every word of Harbour is one token and any text has tokens."""
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


def new_model(vocab_size: int, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """The architecture of a Qwen3 model at 1/5000 of the size: few layers, large heads."""
    config = Qwen3Config(
        vocab_size=vocab_size,
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


Batch = tuple[torch.Tensor, torch.Tensor]
"""Token ids and labels, both [sequences, tokens]; -100 is not learned."""


def copying(
    rng: torch.Generator, vocab_size: int, *, num_sequences: int, num_chunks: int, chunk: int = 4
) -> Batch:
    """Chunks of random tokens, then the same chunks in another order.

    Which chunk comes next cannot be known, so the first token of each is not learned.
    """
    first = torch.randint(260, vocab_size, (num_sequences, num_chunks, chunk), generator=rng)
    order = torch.rand(num_sequences, num_chunks, generator=rng).argsort(1)
    second = first.gather(1, order[..., None].expand_as(first))
    labels = second.clone()
    labels[:, :, 0] = -100
    ids = torch.cat([first.flatten(1), second.flatten(1)], 1)
    masked = torch.cat([torch.full_like(first, -100).flatten(1), labels.flatten(1)], 1)
    return ids, masked


def collate(chats: Sequence[list[Turn]], tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Chats as one batch, padded on the right."""
    rows = []
    for turns in chats:
        encoded = [tokenizer(turn.text, add_special_tokens=False).input_ids for turn in turns]
        ids = [token for part in encoded for token in part]
        labels = [
            token if turn.learned else -100
            for turn, part in zip(turns, encoded, strict=True)
            for token in part
        ]
        rows.append((ids[:CONTEXT_LENGTH], labels[:CONTEXT_LENGTH]))
    width = max(len(ids) for ids, _ in rows)
    pad = tokenizer.pad_token_id
    padded = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])
    learned = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in rows])
    return padded, learned


def draw_batches(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, num_sequences: int
) -> list[Batch]:
    """Four batches whose chats are of like length, in random order: less padding."""
    chats = sorted(
        (corpus.draw() for _ in range(4 * num_sequences)),
        key=lambda turns: sum(len(turn.text) for turn in turns),
    )
    batches = [
        collate(chats[start : start + num_sequences], tokenizer)
        for start in range(0, len(chats), num_sequences)
    ]
    corpus.rng.shuffle(batches)
    return batches


def loss_of(model: Qwen3ForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the learned tokens; the head runs on those positions alone."""
    ids, labels = batch
    device = next(model.parameters()).device
    ids, labels = ids.to(device), labels.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        target = labels[:, 1:]
        wanted = target != -100
        logits = model.lm_head(hidden[wanted])
    return torch.nn.functional.cross_entropy(logits.float(), target[wanted])


class Optimizers:
    """Muon for the matrices, AdamW for embeddings and norms."""

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
        """One step at `share` of the peak learning rates."""
        self.muon.zero_grad(set_to_none=True)
        self.adamw.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.muon.param_groups[0]["lr"] = self.schedule.peak_muon * share
        self.adamw.param_groups[0]["lr"] = self.schedule.peak_adamw * share
        self.muon.step()  # type: ignore[no-untyped-call]
        self.adamw.step()


def warm_up(
    model: Qwen3ForCausalLM, optimizers: Optimizers, rng: torch.Generator, *, max_steps: int
) -> Iterator[float]:
    """Copying until the loss has collapsed; yields the loss of every step."""
    vocab_size = model.config.vocab_size
    smooth = math.log(vocab_size)
    for step in range(max_steps):
        batch = copying(rng, vocab_size, num_sequences=128, num_chunks=3)
        loss = loss_of(model, batch)
        optimizers.step(loss, share=min(1.0, (step + 1) / 50))
        smooth += 0.05 * (loss.item() - smooth)
        yield loss.item()
        if smooth < 0.15:
            return


def num_rules_at(progress: float) -> tuple[int, int]:
    """The curriculum: fewest and most rules a policy, by the share of training that is done."""
    most = 2 + round(7 * min(1.0, progress / 0.2))
    return (min(2 + round(7 * min(1.0, progress / 0.5)), most), most)


def main(
    out: Annotated[Path, typer.Option(help="Folder for weights, tokenizer and figures.")],
    minutes: Annotated[float, typer.Option(help="Longest time to train, in minutes.")] = 75.0,
    max_steps: Annotated[int, typer.Option(help="Most steps after the warm-up.")] = 6000,
    seed: Annotated[int, typer.Option(help="Seed of weights, corpus and sampling.")] = 1,
    start_from: Annotated[
        Path | None, typer.Option(help="Go on from this model, past warm-up and curriculum.")
    ] = None,
) -> None:
    """Trains the scale model of Harbour."""
    started = time.monotonic()
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    schedule = Schedule()
    pack = load_pack(PACK)
    if start_from:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(start_from)
        model = Qwen3ForCausalLM.from_pretrained(start_from, dtype=torch.float32).to(device)
    else:
        tokenizer = train_tokenizer(pack, seed=seed)
        model = new_model(len(tokenizer), tokenizer).to(device)
    num_parameters = sum(p.numel() for p in model.parameters())
    typer.echo(f"{num_parameters:,} parameters, {len(tokenizer)} tokens", err=True)
    optimizers = Optimizers(model, schedule)
    generator = torch.Generator().manual_seed(seed)
    warm_losses = []
    warm_up_steps = 0 if start_from else 6000
    for warm_loss in warm_up(model, optimizers, generator, max_steps=warm_up_steps):
        warm_losses.append(warm_loss)
        if len(warm_losses) % 100 == 0:
            typer.echo(f"warm-up {len(warm_losses)} loss {warm_loss:.3f}", err=True)
    warm_seconds = time.monotonic() - started
    typer.echo(f"warm-up {len(warm_losses)} steps, {warm_seconds:.0f} s", err=True)

    rng = random.Random(seed)
    corpus = Corpus(pack, rng)
    smooth, num_tokens, step = 0.0, 0, 0
    pool: list[Batch] = []
    out.mkdir(parents=True, exist_ok=True)
    for step in range(max_steps):
        elapsed = time.monotonic() - started
        progress = max(step / max_steps, (elapsed - warm_seconds) / (minutes * 60 - warm_seconds))
        if progress >= 1:
            break
        if rng.random() < COPY_SHARE:
            batch = copying(generator, len(tokenizer), num_sequences=64, num_chunks=16)
        else:
            if not pool:
                corpus.num_rules = rng.randint(*num_rules_at(1.0 if start_from else progress))
                pool = draw_batches(corpus, tokenizer, schedule.num_sequences)
            batch = pool.pop()
        loss = loss_of(model, batch)
        # A short rise, constant, then linear to zero over the last 40 %.
        share = min(1.0, (step + 1) / 50, max(0.0, (1 - progress) / 0.4))
        optimizers.step(loss, share=share)
        num_tokens += batch[0].numel()
        smooth = loss.item() if step == 0 else smooth + 0.02 * (loss.item() - smooth)
        if step % 50 == 0:
            typer.echo(
                f"step {step} loss {smooth:.4f} rules {num_rules_at(progress)} "
                f"{num_tokens / max(1.0, elapsed - warm_seconds):,.0f} tokens/s {elapsed:.0f} s",
                err=True,
            )
        if step % 250 == 249:
            save(model, tokenizer, out)
            shares = measure.measure(model, tokenizer, pack, num_items=60, seed=seed)
            typer.echo(json.dumps(shares), err=True)
    save(model, tokenizer, out)
    figures: dict[str, float | str] = {
        "seed": seed,
        "started_from": start_from.name if start_from else "random weights",
        "num_parameters": num_parameters,
        "vocabulary": len(tokenizer),
        "warm_up_steps": len(warm_losses),
        "steps": step,
        "tokens": num_tokens,
        "seconds": round(time.monotonic() - started),
        "device": device.type,
        "loss": round(smooth, 4),
        **measure.measure(model, tokenizer, pack, num_items=400, seed=seed + 1),
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    typer.echo(json.dumps(figures, indent=2))


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Weights in bfloat16, tokenizer and configuration, as any other model's."""
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
