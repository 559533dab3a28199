"""Throughput of the stage beside bare vLLM, and the savings of spec-first prompts and of racing.

    python tests/benchmarks/throughput.py [--samples 8] [--recipe harbour] [--set KEY=VALUE]

Prints, over all prompts of the recipe: output tokens per second of one `LLM.generate` call on all
prompts, and of the stage with the templates `spec_first` and `paper`; then judge tokens and seconds
of mode `race` against `full`, on completions of temperature 2, many of which are wrong, unless
`--templates-only` leaves these out. The engines run one after the other, each in a process of its
own. The last line is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from flows.recipe import Recipe, load_recipe
from specs.prompts import Message
from warehouse.catalog import connect, read
from warehouse.home import Home

PROJECT = Path(__file__).parents[2]


class Throughput(NamedTuple):
    """Output tokens of an engine and the seconds that they took."""

    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


class Subject(NamedTuple):
    """The recipe that is measured, by its name, and what is changed in it."""

    recipe: str
    changes: tuple[str, ...]


def requests(subject: Subject, template: str) -> tuple[Recipe, list[list[Message]]]:
    """Returns the recipe and the messages of all its prompts under a template."""
    from specs.template import load_template
    from tasks.data.candidates import read_source

    changes = [*subject.changes, f"generate.template={template}"]
    recipe = load_recipe(subject.recipe, overrides=changes)
    pack = recipe.load_pack()
    chosen = load_template("generator", recipe.generate.template)
    candidates = sorted(
        (
            candidate
            for source in recipe.sources
            for candidate in read_source(source)
            if not candidate.fault
        ),
        key=lambda candidate: candidate.categories,
    )
    return recipe, [
        recipe.generate.messages(chosen, candidate.messages, spec=pack.spec(candidate.categories))
        for candidate in candidates
    ]


def engine_of(recipe: Recipe) -> Any:
    """Returns vLLM's own engine with the settings of a recipe."""
    engine = recipe.engine
    if engine.replicas > 1 or engine.endpoint:
        raise SystemExit(
            f"engine.replicas is {engine.replicas} and engine.endpoint is "
            f"{'set' if engine.endpoint else 'unset'}, and bare vLLM is one engine of our own; set "
            "engine.replicas=1, and take a recipe without an endpoint"
        )
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(engine.cpu_cache_gib)
    from vllm import LLM

    return LLM(
        model=engine.model_path,
        dtype=engine.dtype,
        max_model_len=engine.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        block_size=engine.block_size,
        tensor_parallel_size=engine.tensor_parallel_size,
        gpu_memory_utilization=engine.memory_share,
        enforce_eager=engine.enforce_eager or not engine.use_gpu,
        **{"enable_prefix_caching": True, **engine.engine_args},
    )


def bare(subject: Subject, num_samples: int) -> Throughput:
    """Returns the throughput of vLLM's own `LLM.generate` on all prompts at once."""
    recipe, chats = requests(subject, "spec_first")
    sampling = recipe.generate.sampling
    llm = engine_of(recipe)
    from vllm import SamplingParams

    tokenizer = llm.get_tokenizer()
    began = time.monotonic()
    prompts = [
        {"prompt_token_ids": tokenizer.encode(text, add_special_tokens=False)}
        for text in (
            tokenizer.apply_chat_template(
                chat,
                tokenize=False,
                add_generation_prompt=True,
                **recipe.engine.chat_template_kwargs,
            )
            for chat in chats
        )
    ]
    parameters = SamplingParams(
        n=num_samples,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
    )
    outputs = llm.generate(prompts, parameters, use_tqdm=False)
    seconds = time.monotonic() - began
    tokens = sum(len(sample.token_ids) for output in outputs for sample in output.outputs)
    return Throughput(tokens, seconds)


def refresh(subject: Subject, home: str, *overrides: str) -> dict[str, Any]:
    """Runs a whole refresh; returns the figures of its stages, by stage."""
    command = [sys.executable, "-m", "flows", "refresh", subject.recipe, "--home", home, "--json"]
    for override in (*subject.changes, *overrides):
        command += ["--set", override]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=PROJECT)
    stages: dict[str, Any] = last_object(done.stdout)["figures"]["stages"]
    return stages


def accepted_ids(home: str) -> set[str]:
    query = "SELECT completion_id FROM verdicts WHERE verdict = 'accepted'"
    return {row[0] for row in read(connect(Home(home)), query).fetchall()}


def last_object(printed: str) -> dict[str, Any]:
    """Returns the last JSON object among the lines that a command and its libraries printed."""
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    last: dict[str, Any] = json.loads(lines[-1])
    return last


def compare_templates(subject: Subject, folder: Path, *, num_samples: int) -> dict[str, float]:
    """Prints and returns the throughput of bare vLLM, and of the stage with each template beside
    it."""
    # Only generating is measured, so judging is cut to one sample of one token.
    overrides = ("judge.samples=1", "judge.sampling.max_tokens=1", "stage.retries=0")
    overrides = (*overrides, f"generate.samples={num_samples}")
    command = [sys.executable, __file__, "--bare", "--samples", str(num_samples)]
    command += ["--recipe", subject.recipe]
    command += [part for change in subject.changes for part in ("--set", change)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=PROJECT)
    alone = Throughput(**last_object(done.stdout))
    print(f"bare vLLM    {alone.tokens_per_second:.0f} tokens/s, {alone.tokens} tokens")
    found = {"bare_tokens_per_second": round(alone.tokens_per_second, 1)}
    for template in ("spec_first", "paper"):
        change = f"generate.template={template}"
        generate = refresh(subject, f"{folder}/{template}", *overrides, change)["generate"]
        usage = generate["usage"]
        rate = usage["output_tokens"] / generate["seconds"]
        cached = usage["cached_tokens"] / usage["prompt_tokens"]
        print(
            f"{template:12} {rate:.0f} tokens/s, {rate / alone.tokens_per_second:.3f} of "
            f"bare vLLM, {cached:.3f} of prompt tokens cached",
            flush=True,
        )
        found[f"{template}_tokens_per_second"] = round(rate, 1)
        found[f"{template}_of_bare"] = round(rate / alone.tokens_per_second, 3)
        found[f"{template}_prefix_hit_rate"] = round(cached, 3)
    return found


def compare_modes(subject: Subject, folder: Path) -> None:
    """Prints the rows, tokens and seconds of racing judges against those of full judging."""
    home = f"{folder}/race"
    hot = ("generate.samples=2", "generate.sampling.temperature=2.0")
    race = refresh(subject, home, *hot)["judge"]
    raced_ids = accepted_ids(home)
    # Full judging adds the judgements that racing left out, so both modes share their samples.
    rest = refresh(subject, home, *hot, "judge.mode=full")["judge"]
    full_ids = accepted_ids(home)
    print(f"race         {json.dumps(race)}\nthen full    {json.dumps(rest)}", flush=True)
    print(f"accepted     {len(raced_ids)} and {len(full_ids)}, the same: {raced_ids == full_ids}")
    counts = {
        "output_tokens": (race["usage"]["output_tokens"], rest["usage"]["output_tokens"]),
        "rows": (race["num_rows"], rest["num_rows"]),
        "seconds": (race["seconds"], rest["seconds"]),
    }
    for name, (raced, added) in counts.items():
        print(f"race / full, {name}: {raced / (raced + added):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=8, help="completions per prompt")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--recipe", default="harbour", help="the recipe that is measured")
    parser.add_argument("--set", action="append", default=[], help="a change to the recipe")
    parser.add_argument("--templates-only", action="store_true", help="leave the modes out")
    options = parser.parse_args()
    subject = Subject(options.recipe, tuple(options.set))
    if options.bare:
        print(json.dumps(bare(subject, options.samples)._asdict()))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = compare_templates(subject, Path(folder), num_samples=options.samples)
        if not options.templates_only:
            compare_modes(subject, Path(folder))
    print(json.dumps(found))


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(PROJECT)
    main()
