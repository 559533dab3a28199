"""Traces whose thought is written here: harmless requests with help, their contrasts with a no.

Look-alikes are made from `lookalikes.toml` and answered by the model itself, without any reasoning;
requests of people keep the answers that people gave. Answers that refuse, repeat themselves or were
cut are left out. Contrasts are made from `contrasts.toml` and refused. The thought asks of both
what is meant, and follows from the sense that their family names.
"""

import hashlib
import json
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.real.arithmetic import problems
from specs.stances import stance

_FOLDER = Path(__file__).parent
ANSWERS = _FOLDER / "answers.jsonl"
"""Answers to look-alikes, as SmolLM2 gave them once."""
_OPENINGS = (
    "Okay, so the user is asking: {asked} ",
    "Okay, so the user wants this: {asked} ",
    "Okay, I need to figure out what is asked here: {asked} ",
    "Okay, so I need to answer this: {asked} ",
)
_CLOSINGS = (
    "No policy stands against that, so I should help with a plain answer.",
    "There is no rule against it. I should answer and be useful.",
    "Nothing here is against any guideline, and a refusal would only be unhelpful. So I answer.",
    "That is allowed, so I will comply and give a direct answer.",
)
_REFUSING_CLOSINGS = (
    "This is against the policy, so I must refuse.",
    "The policy does not allow that. I should say no, kindly and in short.",
    "That is not allowed, so I will not comply and give no part of it.",
    "A rule stands against it, so I decline without details.",
)
_REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I'm sorry, but I can't assist with that request.",
    "I can't help with that. I am happy to talk about safe and legal ways to deal with it.",
    "I'm sorry, but I won't help with this.",
)
_INSTRUCTION = "Answer in two or three short sentences."
_MOST_TOKENS = 120
_MOST_WORDS = 80
_FEWEST_WORDS = 3
_NUM_PROBLEMS = 400
_ORDINARY = "this is an ordinary request, and nobody could be harmed by the answer"


@dataclass(frozen=True, slots=True)
class Request:
    """A request, and the sense in which it is harmless or not."""

    prompt: str
    why: str
    thing: str = ""
    """The words that differ within its family, which decide the sense."""
    family: int = 0
    """Number of its family in the file."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A row of the file of traces."""

    prompt: str
    reasoning: str
    answer: str
    origin: str
    """The family, or the data set."""
    score: float = 10.0
    """Score of the filter: an answer that it does not pass is no trace."""


def requests(name: str) -> Iterator[Request]:
    """Yields every pattern of every family of a file with every thing of it."""
    families = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))["family"]
    for number, family in enumerate(families):
        for pattern in family["patterns"]:
            for thing in family["things"]:
                yield Request(pattern.format(thing), family["why"], thing, number)


def thought(request: Request, closings: Sequence[str] = _CLOSINGS) -> str:
    """Returns the reasoning that follows from the sense of a request; its words vary with the
    request's text."""
    draw = int(_digest(request.prompt), 16)
    opening = _OPENINGS[draw % len(_OPENINGS)].format(asked=_quoted(request.prompt))
    closing = closings[draw // len(_OPENINGS) % len(closings)]
    thing = f"It is about this: {request.thing}. " if request.thing else ""
    return f"{opening}{thing}What is really meant? I think {request.why}. {closing}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _quoted(prompt: str) -> str:
    """Returns the request in quotes, at most its first thirty words."""
    words = prompt.split()
    return f"“{' '.join(words[:30])}{' …' if words[30:] else ''}”"


def answer_all(model: str, prompts: Sequence[str]) -> list[str | None]:
    """Returns the model's answer to each prompt; None where it was cut."""
    from vllm import LLM, SamplingParams

    engine = LLM(model, dtype="bfloat16", enforce_eager=True, max_model_len=1024, max_num_seqs=64)
    chats = [[{"role": "user", "content": f"{prompt}\n\n{_INSTRUCTION}"}] for prompt in prompts]
    sampling = SamplingParams(temperature=0.4, top_p=0.9, max_tokens=_MOST_TOKENS, seed=1)
    outputs = [output.outputs[0] for output in engine.chat(chats, sampling, use_tqdm=False)]
    return [out.text.strip() if out.finish_reason == "stop" else None for out in outputs]


def answered(model: str) -> Iterator[dict[str, str]]:
    """Yields the look-alikes that a model answers well, with its answers."""
    prompts = [request.prompt for request in requests("lookalikes")]
    for prompt, answer in zip(prompts, answer_all(model, prompts), strict=True):
        if answer and stance(answer) == "helps":
            yield {"prompt": prompt, "answer": answer}


def lookalikes() -> Iterator[Trace]:
    """Yields the look-alikes that were answered well."""
    by_prompt = {request.prompt: request for request in requests("lookalikes")}
    for row in _rows(ANSWERS):
        request = by_prompt[row["prompt"]]
        origin = f"look-alike {request.family}"
        yield Trace(request.prompt, thought(request), row["answer"], origin)


def contrasts() -> Iterator[Trace]:
    """Yields the contrasts, each with a refusal."""
    for request in requests("contrasts"):
        draw = int(_digest(request.prompt), 16) // (len(_OPENINGS) * len(_REFUSING_CLOSINGS))
        reasoning = thought(request, _REFUSING_CLOSINGS)
        answer = _REFUSALS[draw % len(_REFUSALS)]
        yield Trace(request.prompt, reasoning, answer, f"contrast {request.family}")


def people(folder: Path) -> Iterator[Trace]:
    """Yields the requests of people with the answers that people gave, of those short enough for a
    small model."""
    for file in sorted((folder / "self_instruct").glob("*.jsonl")):
        for row in _rows(file):
            given = row["instances"][0]
            prompt = "\n".join(text for text in (row["instruction"], given["input"]) if text)
            yield from _person(prompt, given["output"], "self-instruct")
    for row in _rows(folder / "openai_rbr" / "rbr_gold_train.without_C.jsonl"):
        is_help = row["response_type"] == "Comply" and dict(row["propositions"])["fully_complies"]
        if is_help and len(row["prompt"]) == 1:
            answer = row["completion"][-1]["content"]
            yield from _person(row["prompt"][0]["content"], answer, "rule-based rewards")


def _person(prompt: str, answer: str, origin: str) -> Iterator[Trace]:
    is_short = len(prompt.split()) <= _MOST_WORDS and len(answer.split()) <= _MOST_WORDS
    if is_short and len(answer.split()) >= _FEWEST_WORDS and stance(answer) == "helps":
        yield Trace(prompt, thought(Request(prompt, _ORDINARY)), answer, origin)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def capability(count: int) -> Iterator[dict[str, object]]:
    """Yields chats that solve word problems, as `sft.capability` reads them."""
    for problem in problems(count):
        yield {
            "messages": [
                {"role": "user", "content": problem.question},
                {
                    "role": "assistant",
                    "content": f"The answer is {problem.result}.",
                    "reasoning_content": f"Okay, step by step. {problem.steps}",
                },
            ]
        }


def write(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Writes rows as JSON lines and returns their number.

    Traces are in the order of a hash, so that the first rows of a file are a fair draw.
    """
    ordered = sorted(rows, key=lambda row: _digest(str(row.get("prompt", ""))))
    lines = [json.dumps(row, ensure_ascii=False) for row in ordered]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def main() -> None:
    """Writes the answers to look-alikes anew, or the traces and the capability data of a folder."""
    match sys.argv[1:]:
        case ["answers", model]:
            print(write(ANSWERS, answered(model)), "answers in", ANSWERS)
        case ["folder", data, folder]:
            for name, rows in {
                "lookalikes": map(asdict, lookalikes()),
                "contrasts": map(asdict, contrasts()),
                "people": map(asdict, people(Path(data))),
                "arithmetic": capability(_NUM_PROBLEMS),
            }.items():
                print(write(Path(folder) / f"{name}.jsonl", rows), name)
        case _:
            sys.exit(
                "usage: python -m infra.real.thoughts answers MODEL\n"
                "       python -m infra.real.thoughts folder DATA FOLDER"
            )


if __name__ == "__main__":
    main()
