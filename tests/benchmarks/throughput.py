"""What the stage costs beside bare vLLM, and what the order of the prompt and racing save.

    python tests/benchmarks/throughput.py [--samples 8]

On all Harbour prompts, in one run: output tokens a second of `LLM.generate` on all prompts at once
and of the stage; of the stage with the templates `spec_first` and `paper`; and judge tokens and
time of `race` against `full`, on completions sampled hot enough that many are wrong. Each engine
has a process of its own, one after the other.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flows.recipe import load_recipe
from warehouse.catalog import connect
from warehouse.home import Home

PROJECT = Path(__file__).parents[2]
Usage = dict[str, Any]


def requests(template: str) -> tuple[Any, list[Any]]:
    """The recipe and the messages of all prompts under a template."""
    from specs.prompts import generator_messages, load_template
    from tasks.data.candidates import read_source

    recipe = load_recipe("harbour", overrides=[f"generate.template={template}"])
    pack = recipe.load_pack()
    chosen = load_template("generator", recipe.generate.template)
    candidates = sorted(
        (candidate for source in recipe.sources for candidate in read_source(source)),
        key=lambda candidate: candidate.categories,
    )
    return recipe, [
        generator_messages(chosen, candidate.messages, spec=pack.spec(candidate.categories))
        for candidate in candidates
    ]


def bare(samples: int) -> Usage:
    """vLLM's own `LLM.generate`, all prompts at once."""
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    from vllm import LLM, SamplingParams

    recipe, chats = requests("spec_first")
    engine, sampling = recipe.engine, recipe.generate.sampling
    llm = LLM(
        model=engine.model_path,
        dtype=engine.dtype,
        max_model_len=engine.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        block_size=engine.block_size,
        enforce_eager=True,
        enable_prefix_caching=True,
    )
    tokenizer = llm.get_tokenizer()
    began = time.monotonic()
    prompts = [
        {"prompt_token_ids": tokenizer.encode(text, add_special_tokens=False)}
        for text in (
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            for chat in chats
        )
    ]
    parameters = SamplingParams(
        n=samples, temperature=sampling.temperature, max_tokens=sampling.max_tokens
    )
    outputs = llm.generate(prompts, parameters, use_tqdm=False)
    seconds = time.monotonic() - began
    tokens = sum(len(one.token_ids) for output in outputs for one in output.outputs)
    return {"seconds": seconds, "tokens": tokens, "tokens_per_second": tokens / seconds}


def refresh(home: str, *overrides: str) -> Usage:
    """A whole refresh; the figures of its stages."""
    command = [sys.executable, "-m", "flows", "refresh", "harbour", "--home", home, "--json"]
    for override in overrides:
        command += ["--set", override]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
    figures: Usage = last_object(done.stdout)["figures"]
    return figures


def accepted_ids(home: str) -> set[str]:
    query = "SELECT completion_id FROM verdicts WHERE verdict = 'accepted'"
    return {row[0] for row in connect(Home(home)).execute(query).fetchall()}


def last_object(printed: str) -> Usage:
    """The last JSON object that a command printed, among whatever libraries say."""
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    found: Usage = json.loads(lines[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(bare(options.samples)))
        return
    # What is measured is generating: that nothing is judged saves time.
    few = ("judge.samples=1", "judge.sampling.max_tokens=1", "stage.retries=0")
    few = (*few, f"generate.samples={options.samples}")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--bare", "--samples", str(options.samples)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
        alone = last_object(done.stdout)
        print("bare vLLM   ", json.dumps({key: round(value) for key, value in alone.items()}))
        for template in ("spec_first", "paper"):
            home = f"{folder}/{template}"
            made = refresh(home, *few, f"generate.template={template}")["generate"]
            rate = made["output_tokens"] / made["seconds"]
            print(
                f"{template:12} {rate:.0f} tokens/s, {rate / alone['tokens_per_second']:.3f} of "
                f"bare vLLM, {made['cache_hit_rate']:.3f} of prompt tokens cached",
                flush=True,
            )
        # Full judging goes on from what racing asked, so that both have the same samples.
        hot = ("generate.samples=2", "generate.sampling.temperature=2.0")
        race = refresh(f"{folder}/race", *hot)["judge"]
        raced = accepted_ids(f"{folder}/race")
        rest = refresh(f"{folder}/race", *hot, "judge.mode=full")["judge"]
        full = accepted_ids(f"{folder}/race")
        print(f"race         {json.dumps(race)}\nthen full    {json.dumps(rest)}", flush=True)
        print(f"accepted     {len(raced)} and {len(full)}, the same: {raced == full}")
        for figure in ("output_tokens", "rows", "seconds"):
            ratio = race[figure] / (race[figure] + rest.get(figure, 0))
            print(f"race / full, {figure}: {ratio:.3f}")


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(PROJECT)
    main()
