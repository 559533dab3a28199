"""Precept beside other ways to make the same rows: accepted rows a second, from a cold start.

    python -m tests.benchmarks.peers [--prompts 504] [--temperature 1.3] [--rounds 2] [--only NAME]

Every contender gets the same prompts, model and sampling, and writes the completions of which all
judge samples reach the threshold. Each runs in a process of its own, one after the other, in as
many rounds as asked; seconds are those from the start of that process to its end.

| name | is |
|--|--|
| `race`, `full` | `precept refresh`, judging in either mode |
| `bare` | vLLM's `LLM.generate`, called once for all completions and once for all judgements |
| `script` | the same as short scripts do it: spec last, batches of 50, a request a sample |
| `client` | an HTTP client with 64 requests at a time, and vLLM's server |
| `ray_data_llm` | Ray Data's own LLM processor, once for completions and once for judgements |

Precept judges equal texts of a prompt once; `texts` counts the different ones of each contender.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.recipe import Recipe, load_recipe
from specs.policy import Spec
from specs.prompts import Message, generator_messages, judge_messages
from specs.replies import Reply, split_text
from specs.template import load_template
from tasks.data.candidates import read_source
from tests.benchmarks.throughput import engine_of

PROJECT = Path(__file__).parents[2]
SCORE = re.compile(r"^Score: (\d+)$", re.MULTILINE)
Chat = list[Message]


@dataclass(frozen=True, slots=True)
class Job:
    """The work that every contender is given."""

    prompts: int
    samples: int
    judgements: int
    temperature: float

    @property
    def overrides(self) -> list[str]:
        """The same as changes of Harbour's recipe."""
        sampling = f"{{ temperature = {self.temperature}, max_tokens = 160 }}"
        return [
            f"sources.0.limit={self.prompts}",
            f"generate.samples={self.samples}",
            f"generate.sampling={sampling}",
            f"judge.samples={self.judgements}",
        ]


@dataclass(frozen=True, slots=True)
class Made:
    """Counts of the rows that a contender made."""

    completions: int
    texts: int
    accepted: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt with its policies."""

    messages: Chat
    spec: Spec


def asked(job: Job, recipe: Recipe) -> list[Asked]:
    pack = recipe.load_pack()
    [source] = recipe.sources
    return [Asked(one.messages, pack.spec(one.categories)) for one in read_source(source)]


Ask = Callable[[Sequence[Chat], int, float], list[list[str]]]
"""Takes chats, samples and a temperature; returns the texts of the replies to each chat."""


def make(job: Job, ask: Ask, *, template: str = "harbour") -> Made:
    """Generates, judges and writes the accepted rows by means of `ask`."""
    recipe = load_recipe("harbour", overrides=job.overrides)
    generator, judge = load_template("generator", template), load_template("judge", template)
    prompts = asked(job, recipe)
    chats = [generator_messages(generator, one.messages, spec=one.spec) for one in prompts]
    outputs = ask(chats, job.samples, job.temperature)
    completions = [
        (prompt, split_text(text))
        for prompt, texts in zip(prompts, outputs, strict=True)
        for text in texts
    ]
    readable = [(prompt, reply) for prompt, reply in completions if reply.status == "ok"]
    questions = [
        judge_messages(
            judge, one.messages, spec=one.spec, answer=reply.answer, reasoning=reply.reasoning
        )
        for one, reply in readable
    ]
    verdicts = ask(questions, job.judgements, recipe.judge.sampling.temperature)
    accepted = [
        {"messages": prompt.messages, "reasoning": reply.reasoning, "answer": reply.answer}
        for (prompt, reply), texts in zip(readable, verdicts, strict=True)
        if lowest(texts) >= recipe.judge.threshold
    ]
    lines = [json.dumps(row) + "\n" for row in accepted]
    Path("accepted.jsonl").write_text("".join(lines), encoding="utf-8")
    return Made(len(completions), num_texts(readable), len(accepted))


def lowest(texts: Sequence[str]) -> float:
    """Returns the lowest score of a judge's replies, -1 if one has none."""
    found = [SCORE.search(split_text(text).answer) for text in texts]
    return min((float(match[1]) if match else -1.0 for match in found), default=-1.0)


def num_texts(readable: Sequence[tuple[Asked, Reply]]) -> int:
    return len({(id(one), reply.reasoning, reply.answer) for one, reply in readable})


def bare(job: Job) -> Made:
    return make(job, _by_generate(batch=None))


def script(job: Job) -> Made:
    return make(job, _by_generate(batch=50), template="paper")


def _by_generate(*, batch: int | None) -> Ask:
    """Returns how to ask an engine in this process: all at once, or `batch` requests at a time,
    each of one sample."""
    engine = engine_of(load_recipe("harbour"))

    def ask(chats: Sequence[Chat], samples: int, temperature: float) -> list[list[str]]:
        from vllm import SamplingParams

        options = {"temperature": temperature, "max_tokens": 160, "skip_special_tokens": False}
        if batch is None:
            outputs = engine.chat(list(chats), SamplingParams(n=samples, **options), use_tqdm=False)
            return [[_text(one.text) for one in output.outputs] for output in outputs]
        repeated = [chat for chat in chats for _ in range(samples)]
        texts: list[str] = []
        for start in range(0, len(repeated), batch):
            some = repeated[start : start + batch]
            outputs = engine.chat(some, SamplingParams(**options), use_tqdm=False)
            texts += [_text(output.outputs[0].text) for output in outputs]
        return _in_groups(texts, samples)

    return ask


def _text(written: str) -> str:
    return written.split("<|im_end|>")[0]


def _in_groups(texts: Sequence[str], samples: int) -> list[list[str]]:
    return [list(texts[start : start + samples]) for start in range(0, len(texts), samples)]


def client(job: Job) -> Made:
    from tests.benchmarks.endpoint import KEY, serving

    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:

        def ask(chats: Sequence[Chat], samples: int, temperature: float) -> list[list[str]]:
            body = {
                "model": "harbour",
                "temperature": temperature,
                "max_tokens": 160,
                "skip_special_tokens": False,
            }
            bodies = [body | {"messages": chat} for chat in chats for _ in range(samples)]
            return _in_groups(asyncio.run(_post_all(server.url, KEY, bodies)), samples)

        return make(job, ask)


async def _post_all(url: str, key: str, bodies: Sequence[dict[str, Any]]) -> list[str]:
    import httpx

    at_once = asyncio.Semaphore(64)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(headers=headers, timeout=600) as session:

        async def post(body: dict[str, Any]) -> str:
            async with at_once:
                reply = await session.post(f"{url}/chat/completions", json=body)
            return _text(reply.raise_for_status().json()["choices"][0]["message"]["content"])

        return list(await asyncio.gather(*map(post, bodies)))


def ray_data_llm(job: Job) -> Made:
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    engine = load_recipe("harbour").engine
    ray.init(log_to_driver=False)
    config = vLLMEngineProcessorConfig(
        model_source=engine.model_path,
        engine_kwargs={
            "dtype": engine.dtype,
            "max_model_len": engine.max_model_len,
            "max_num_seqs": engine.max_num_seqs,
            "max_num_batched_tokens": engine.max_num_batched_tokens,
            "block_size": engine.block_size,
            "enforce_eager": True,
        },
        concurrency=1,
        batch_size=64,
    )

    def ask(chats: Sequence[Chat], samples: int, temperature: float) -> list[list[str]]:
        options = {"temperature": temperature, "max_tokens": 160, "skip_special_tokens": False}
        processor = build_processor(
            config,
            preprocess=lambda row: {
                "messages": json.loads(row["chat"]),
                "sampling_params": options,
                "place": row["place"],
            },
            postprocess=lambda row: {"place": row["place"], "text": row["generated_text"]},
        )
        repeated = [chat for chat in chats for _ in range(samples)]
        rows = [{"place": n, "chat": json.dumps(chat)} for n, chat in enumerate(repeated)]
        made = processor(ray.data.from_items(rows)).take_all()
        ordered = sorted(made, key=lambda row: row["place"])
        return _in_groups([_text(row["text"]) for row in ordered], samples)

    return make(job, ask)


def precept(mode: str) -> Callable[[Job], Made]:
    def refresh(job: Job) -> Made:
        from warehouse.catalog import connect, read
        from warehouse.home import Home

        command = [sys.executable, "-m", "flows", "refresh", "harbour", "--home", "home"]
        for change in [*job.overrides, f"judge.mode={mode}"]:
            command += ["--set", change]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        query = """
            SELECT count(*), count(DISTINCT prompt_id || reasoning || answer),
                count(*) FILTER (verdict = 'accepted')
            FROM completions AS c LEFT JOIN verdicts AS v USING (completion_id)
        """
        [counts] = read(connect(Home("home")), query).fetchall()
        return Made(*counts)

    return refresh


CONTENDERS: dict[str, Callable[[Job], Made]] = {
    "race": precept("race"),
    "full": precept("full"),
    "bare": bare,
    "script": script,
    "client": client,
    "ray_data_llm": ray_data_llm,
}


def run(name: str, job: Job) -> tuple[Made, float]:
    """Runs a contender in a process and a folder of its own; returns what it made and seconds."""
    command = [sys.executable, __file__, "--contender", name]
    for key, value in asdict(job).items():
        command += [f"--{key}", str(value)]
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return Made(**json.loads(lines[-1])), seconds


def main() -> None:
    """Prints a line a contender and round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--prompts", type=int, default=504)
    parser.add_argument("--samples", type=int, default=8, help="completions per prompt")
    parser.add_argument("--judgements", type=int, default=4, help="judge samples per completion")
    parser.add_argument("--temperature", type=float, default=1.3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", action="append", choices=CONTENDERS)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    job = Job(options.prompts, options.samples, options.judgements, options.temperature)
    if options.contender:
        print(json.dumps(asdict(CONTENDERS[options.contender](job))))
        return
    for number in range(options.rounds):
        for name in options.only or CONTENDERS:
            made, seconds = run(name, job)
            load = os.getloadavg()[0]
            print(
                f"round {number + 1} {name:13} {seconds:7.1f} s {made.accepted / seconds:7.2f} "
                f"accepted rows/s, {made.accepted} of {made.completions} ({made.texts} texts), "
                f"load {load:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(PROJECT)
    main()
