"""An endpoint as an engine, against a server that is scripted to have good days and bad ones."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.responses import Response

from specs.prompts import Message
from specs.replies import ReplyForm, ReplyStart
from tasks.engine.endpoint import EndpointEngine
from tasks.engine.endpoint_config import EndpointConfig, check_endpoint
from tasks.engine.requests import UNASKED, UNREACHABLE, EngineConfig, Request, Sample, Sampling
from tasks.engine.usage import Usage
from tests.scripted_server import (
    MODEL,
    Script,
    ScriptedServer,
    completion,
    half,
    listing,
    refusal,
    scripted,
)
from warehouse.home import Home

KEY = "sk-very-secret-0123456789"
THOUGHT = "<think>by rule A1</think>yes"


@pytest.fixture(scope="module")
def running() -> Iterator[ScriptedServer]:
    with scripted(lambda body, index: completion(THOUGHT)) as server:
        yield server


@pytest.fixture
def serve(running: ScriptedServer) -> Callable[[Script], ScriptedServer]:
    """Gives the server a script, and lets it forget what it was asked."""

    def start(script: Script) -> ScriptedServer:
        running.reset(script)
        return running

    return start


def config(server: ScriptedServer, **options: Any) -> EngineConfig:
    of_engine = {name: options.pop(name) for name in ("reasons", "replicas") if name in options}
    endpoint = {"url": server.url, "retries": 2, **options}
    return EngineConfig.model_validate({"model": MODEL, "endpoint": endpoint, **of_engine})


def request(num_samples: int = 1, *, text: str = "May I?", **options: Any) -> Request:
    message: Message = {"role": "user", "content": text}
    options.setdefault("sampling", Sampling(temperature=0.5, max_tokens=20))
    return Request(messages=[message], num_samples=num_samples, **options)


def ask(
    engine: EngineConfig, *requests: Request, home: Home | None = None, key: str | None = None
) -> tuple[list[list[Sample]], Usage]:
    """The samples of requests that are asked at once, and what the engine used."""

    async def run() -> tuple[list[list[Sample]], Usage]:
        asked = EndpointEngine(engine, SecretStr(key) if key else None, home=home)
        try:
            return await asked.generate(requests), await asked.usage()
        finally:
            await asked.stop()

    return asyncio.run(run())


def ask_one(
    server: ScriptedServer, wanted: Request | None = None, **options: Any
) -> tuple[list[Sample], Usage]:
    [samples], usage = ask(config(server, **options), wanted or request())
    return samples, usage


Serve = Callable[[Script], ScriptedServer]


def test_reply_has_reasoning_answer_and_tokens(serve: Serve) -> None:
    server = serve(lambda body, index: completion(THOUGHT))
    [sample], usage = ask_one(server)
    assert (sample.status, sample.reply.reasoning, sample.reply.answer) == (
        "ok",
        "by rule A1",
        "yes",
    )
    assert (sample.num_prompt_tokens, sample.num_output_tokens) == (10, 6)
    assert sample.reply.num_reasoning_tokens + sample.reply.num_answer_tokens == 6
    assert sample.num_cached_tokens is None, "the server does not tell"
    assert (usage.prompt_tokens, usage.output_tokens, usage.requests) == (10, 6, 1)
    [body] = server.bodies
    assert body == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "May I?"}],
        "max_tokens": 20,
        "temperature": 0.5,
        "top_p": 1.0,
    }


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_read_from_either_field(name: str, serve: Serve) -> None:
    server = serve(lambda body, index: completion("yes", **{name: "by rule A1"}))
    [sample], _ = ask_one(server)
    assert (sample.reply.reasoning, sample.reply.answer) == ("by rule A1", "yes")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a<think>b</think>c", {}),
        ("<think>a</think>b</think>c", {}),
        ("no</think>yes", {}),
        ("yes<think>more", {"reasoning": "by rule A1"}),
        ("yes", {"reasoning": "a</think>b"}),
    ],
)
def test_reply_with_a_mark_where_none_may_be_is_malformed(
    text: str, fields: dict[str, str], serve: Serve
) -> None:
    server = serve(lambda body, index: completion(text, **fields))
    [sample], _ = ask_one(server)
    assert (sample.status, sample.reply.answer) == ("malformed", "")


def test_judge_without_reasoning_has_its_whole_reply_as_answer(serve: Serve) -> None:
    server = serve(lambda body, index: completion("Fine.\nScore: 9"))
    [sample], _ = ask_one(server, reasons=False)
    assert (sample.status, sample.reply.answer) == ("empty_reasoning", "Fine.\nScore: 9")


def test_special_tokens_in_messages_are_broken_unless_raw(serve: Serve) -> None:
    server = serve(lambda body, index: completion(THOUGHT))
    text = "<|im_end|></think>"
    ask(config(server), request(text=text), request(text=text, raw=True))
    sent = {body["messages"][0]["content"] for body in server.bodies}
    assert sent == {text, "< |im_end|>< /think>"}


def test_several_samples_are_one_request_where_the_server_takes_it(serve: Serve) -> None:
    server = serve(lambda body, index: completion(*[THOUGHT] * body["n"]))
    samples, usage = ask_one(server, request(3))
    assert [body["n"] for body in server.bodies] == [3]
    assert [sample.status for sample in samples] == ["ok"] * 3
    assert sum(sample.num_output_tokens or 0 for sample in samples) == 6 == usage.output_tokens


@pytest.mark.parametrize("way", ["refused", "ignored"])
def test_several_samples_are_asked_one_by_one_where_it_does_not(way: str, serve: Serve) -> None:
    def script(body: dict[str, Any], index: int) -> Response:
        if "n" in body and way == "refused":
            return refusal(400, "Unsupported value: 'n' must be 1 for this model.")
        return completion(THOUGHT)

    server = serve(script)

    async def run() -> tuple[list[list[Sample]], Usage]:
        engine = EndpointEngine(config(server))
        first = await engine.generate([request(3)])
        second = await engine.generate([request(2)])
        await engine.stop()
        return first + second, await engine.usage()

    outputs, usage = asyncio.run(run())
    assert [[sample.status for sample in samples] for samples in outputs] == [
        ["ok"] * 3,
        ["ok"] * 2,
    ]
    assert ["n" in body for body in server.bodies].count(True) == 1, "found out once"
    assert len(server.bodies) == 5 + (way == "refused")
    assert usage.notes == (
        "the server gives one sample a request, so several are asked one by one",
    )


def test_pattern_is_sent_and_left_out_where_it_is_refused(serve: Serve) -> None:
    def script(body: dict[str, Any], index: int) -> Response:
        if "structured_outputs" in body:
            return refusal(400, "Unrecognized request arguments supplied")
        return completion(THOUGHT)

    server = serve(script)

    async def run() -> tuple[list[list[Sample]], Usage]:
        engine = EndpointEngine(config(server))
        outputs = [await engine.generate([request(form="yes|no")]) for _ in range(2)]
        await engine.stop()
        return [samples for [samples] in outputs], await engine.usage()

    outputs, usage = asyncio.run(run())
    assert [sample.status for [sample] in outputs] == ["ok", "ok"]
    assert [body.get("structured_outputs") for body in server.bodies] == [
        {"regex": "yes|no"},
        None,
        None,
    ]
    assert usage.notes == (
        "the server refuses structured outputs, so replies are not held to their form",
    )


@pytest.mark.parametrize(
    ("reasons", "start"), [("prompted", "reasoning"), (False, "answer"), (True, "any")]
)
def test_form_of_a_verdict_begins_as_the_model_does(
    serve: Serve, reasons: bool | str, start: ReplyStart
) -> None:
    server = serve(lambda body, index: completion(THOUGHT))
    form = ReplyForm(("Score: [0-9]",), 60)
    ask(config(server, reasons=reasons), request(form=form))
    assert server.bodies[0]["structured_outputs"] == {"regex": form.pattern(start)}


def test_other_name_of_the_limit_is_found_out(serve: Serve) -> None:
    def script(body: dict[str, Any], index: int) -> Response:
        if "max_tokens" in body:
            return refusal(400, "'max_tokens' is not supported: use 'max_completion_tokens'")
        return completion(THOUGHT)

    server = serve(script)
    [sample], usage = ask_one(server)
    assert (sample.status, usage.notes) == ("ok", ())
    assert server.bodies[-1]["max_completion_tokens"] == 20


def test_setting_that_shapes_replies_is_not_left_out(serve: Serve) -> None:
    server = serve(lambda body, index: refusal(400, "'temperature' must be 1 for this model"))
    [sample], _ = ask_one(server)
    assert sample.status == "error" and "'temperature' must be 1" in (sample.reason or "")
    assert len(server.bodies) == 1


def test_pattern_stays_where_the_request_itself_was_refused(serve: Serve) -> None:
    server = serve(lambda body, index: refusal(400, "the image of the prompt is too dark"))
    [sample], usage = ask_one(server, request(form="yes|no"))
    assert (sample.status, usage.notes) == ("error", ())


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (lambda: completion("<think>by", finish="length"), "truncated", None),
        (lambda: completion("", finish="content_filter"), "filtered", "content filter withheld"),
        (lambda: refusal(400, "blocked by the content_filter"), "filtered", "refuses the prompt"),
        (lambda: refusal(400, "maximum context length is 8"), "too_long", "maximum context length"),
        (lambda: completion(), "error", "without any message"),
        (lambda: refusal(500, "out of cheese"), "error", "answers 500: out of cheese"),
        (lambda: Response('{"choi', media_type="application/json"), "error", "cannot be read"),
        (half, "error", "broke off its answer"),
    ],
)
def test_bad_answer_is_a_row_with_its_reason(
    answer: Callable[[], Response], status: str, reason: str | None, serve: Serve
) -> None:
    """The next request is asked: the fault is of this one."""
    server = serve(lambda body, index: THOUGHTS if body["messages"][0] == GOOD else answer())
    [[bad], [good]], _ = ask(config(server, retries=0), request(), request(text="good"))
    assert (bad.status, good.status) == (status, "ok")
    assert bad.reason is None if reason is None else reason in (bad.reason or "")


GOOD = {"role": "user", "content": "good"}
THOUGHTS = completion(THOUGHT)


def test_server_that_never_answers_is_given_up(serve: Serve) -> None:
    server = serve(lambda body, index: completion(THOUGHT))
    server.seconds = 0.3
    [sample], _ = ask_one(server, retries=0, timeout_seconds=0.05)
    assert sample.status == "error" and "gave no answer in 0.05 s" in (sample.reason or "")


@pytest.mark.parametrize("bad", [lambda: refusal(500, "x"), lambda: refusal(429, "x"), half])
def test_fault_that_passes_is_retried(bad: Callable[[], Response], serve: Serve) -> None:
    server = serve(lambda body, index: bad() if index == 0 else completion(THOUGHT))
    [sample], usage = ask_one(server)
    assert (sample.status, usage.requests, len(server.bodies)) == ("ok", 2, 2)


@pytest.mark.parametrize(
    ("headers", "least"),
    [({}, 0.03), ({"retry-after": "0.4"}, 0.4), ({"retry-after-ms": "400"}, 0.4)],
)
def test_retry_waits_as_the_server_asks_or_else_a_moment(
    headers: dict[str, str], least: float, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openai import _base_client

    monkeypatch.setattr(_base_client, "INITIAL_RETRY_DELAY", 0.05)
    times: list[float] = []

    def script(body: dict[str, Any], index: int) -> Response:
        times.append(time.monotonic())
        return completion(THOUGHT) if index else Response("{}", status_code=429, headers=headers)

    [sample], usage = ask_one(serve(script))
    assert (sample.status, usage.requests) == ("ok", 2)
    assert times[1] - times[0] >= least


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (lambda: refusal(401, f"bad key {KEY}"), UNASKED, "refuses the key (401)"),
        (lambda: refusal(404, "no such model"), UNASKED, "no such model or address"),
        (lambda: completion(THOUGHT, model="town-2"), UNASKED, "answers as model 'town-2' and not"),
        (lambda: refusal(429, "slow down"), UNREACHABLE, "answers 429 after all retries"),
        (lambda: refusal(429, "slow", retry_after_ms="300000"), UNREACHABLE, "answers 429"),
        (lambda: refusal(429, "slow", retry_after="1"), UNREACHABLE, "it asks to wait 1 s"),
        (lambda: refusal(503, "loading"), UNREACHABLE, "answers 503"),
    ],
)
def test_fault_of_every_request_ends_the_work(
    answer: Callable[[], Response], kind: str, sentence: str, serve: Serve
) -> None:
    """What is left is not asked, and has no row; the key stands in no reason."""
    server = serve(lambda body, index: answer())
    requests = [request(text=str(i)) for i in range(20)]
    asked = config(server, max_in_flight=1, retries=1, key_variable="TOWN_KEY")
    outputs, _ = ask(asked, *requests, key=KEY)
    assert {sample.fault for [sample] in outputs} == {kind}
    assert all(sentence in (sample.reason or "") for [sample] in outputs)
    assert KEY not in repr(outputs)
    assert len(server.bodies) <= 2


def test_server_that_is_gone_ends_the_work(serve: Serve) -> None:
    with scripted(lambda body, index: completion(THOUGHT)) as server:
        asked = config(server, retries=0)
    [[sample]], _ = ask(asked, request())
    assert sample.fault == UNREACHABLE and "does not answer" in (sample.reason or "")


def test_other_name_of_the_model_is_taken_where_the_recipe_says_so(serve: Serve) -> None:
    server = serve(lambda body, index: completion(THOUGHT, model="town-1-2026"))
    [sample], _ = ask_one(server, served_as=["town-1-2026"])
    assert sample.status == "ok"


def test_tokens_that_are_not_told_are_unknown(serve: Serve) -> None:
    server = serve(lambda body, index: completion(THOUGHT, usage={}))
    [sample], usage = ask_one(server)
    counts = (sample.num_prompt_tokens, sample.num_output_tokens, sample.num_answer_tokens)
    assert (sample.status, counts, usage.unmetered) == ("ok", (None, None, None), 1)
    assert usage.notes == ("the server does not tell tokens, so rows have none and a budget counts "
                           "the most",)  # fmt: skip


def test_requests_in_flight_are_limited_and_fewer_after_a_429(serve: Serve) -> None:
    server = serve(lambda body, index: refusal(429, "x") if index == 3 else completion(THOUGHT))
    server.seconds = 0.02
    requests = [request(text=str(i)) for i in range(24)]

    async def run() -> tuple[int, float]:
        engine = EndpointEngine(config(server, max_in_flight=8))
        outputs = await engine.generate(requests)
        await engine.stop()
        ok = sum(sample.status == "ok" for [sample] in outputs)
        return ok, engine._throttle.limiter.total_tokens

    num_ok, limit = asyncio.run(run())
    assert (num_ok, server.most_open) == (24, 8)
    assert 4 <= limit < 8, "halved, and growing again"


def test_replicas_share_the_requests_in_flight(serve: Serve) -> None:
    server = serve(lambda body, index: completion(THOUGHT))
    server.seconds = 0.02
    ask(config(server, max_in_flight=8, replicas=4), *[request() for _ in range(8)])
    assert server.most_open == 2


PRICES = {"input": 1_000_000.0, "cached": 0.0, "output": 2_000_000.0}
"""One a prompt token, two an output token: a reply of the server costs 22."""


def test_budget_is_never_exceeded_and_goes_on_when_raised(serve: Serve, disk: Home) -> None:
    """What a run was paid for counts in the next; what was not asked has no sample."""
    server = serve(lambda body, index: completion(THOUGHT))
    requests = [request(text=str(i)) for i in range(40)]
    budget = {"tokens": 900}

    outputs, usage = ask(config(server, budget=budget), *requests, home=disk)
    num_done = sum(sample.status == "ok" for [sample] in outputs)
    withheld = [sample for [sample] in outputs if sample.fault == UNASKED]
    assert 0 < num_done == len(server.bodies) < 40 and num_done + len(withheld) == 40
    assert usage.prompt_tokens + usage.output_tokens == 16 * num_done <= 900
    assert f"budget.tokens is 900 and {16 * num_done} of them are spent" in str(withheld[0].reason)

    again, _ = ask(config(server, budget=budget), *requests[num_done:], home=disk)
    assert all(sample.fault == UNASKED for [sample] in again), "the same budget is still used up"
    assert len(server.bodies) == num_done

    rest, _ = ask(config(server, budget={"tokens": 9_000}), *requests[num_done:], home=disk)
    assert all(sample.status == "ok" for [sample] in rest)
    assert len(server.bodies) == 40, "nothing was asked twice"


def test_money_is_counted_with_cached_tokens_at_their_own_price(serve: Serve, disk: Home) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}
    told = usage | {"prompt_tokens_details": {"cached_tokens": 8}}
    server = serve(lambda body, index: completion(THOUGHT, usage=told))
    asked = config(server, prices=PRICES, budget={"money": 1_000.0})
    [[sample]], used = ask(asked, request(), home=disk)
    assert (used.cost, sample.num_cached_tokens) == (14.0, 8)
    [account] = disk.files.glob(f"{disk.root}/endpoints/*/*.json")
    assert json.loads(disk.files.cat_file(account)) == {
        "url": server.url,
        "model": MODEL,
        "tokens": 16,
        "money": 14.0,
    }


def test_reasoning_that_is_told_in_the_total_alone_is_paid_for(serve: Serve) -> None:
    told = {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 96}
    server = serve(lambda body, index: completion(THOUGHT, usage=told))
    [[sample]], usage = ask(config(server, prices=PRICES), request())
    assert (sample.num_output_tokens, usage.output_tokens, usage.cost) == (86, 86, 182.0)


def test_more_cached_tokens_than_the_prompt_has_earn_nothing(serve: Serve) -> None:
    counts = {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}
    told = counts | {"prompt_tokens_details": {"cached_tokens": 900}}
    server = serve(lambda body, index: completion(THOUGHT, usage=told))
    [[sample]], usage = ask(config(server, prices=PRICES), request())
    assert (sample.num_cached_tokens, usage.cost) == (10, 12.0)


def test_reply_without_usage_is_charged_with_the_most(serve: Serve) -> None:
    server = serve(lambda body, index: completion(THOUGHT, usage={}))
    asked = config(server, budget={"tokens": 700}, max_in_flight=1)
    outputs, _ = ask(asked, *[request(text=str(i)) for i in range(9)])
    assert len(server.bodies) == 2 and outputs[2][0].fault == UNASKED


@pytest.mark.parametrize(
    ("answer", "num_sent"), [(half, 2), (lambda: refusal(500, "out of cheese"), 9)]
)
def test_reply_that_was_made_and_never_came_whole_is_charged_with_the_most(
    answer: Callable[[], Response], num_sent: int, serve: Serve
) -> None:
    """A request that the server refused costs nothing."""
    server = serve(lambda body, index: answer())
    asked = config(server, budget={"tokens": 700}, max_in_flight=1, retries=0)
    ask(asked, *[request(text=str(i)) for i in range(9)])
    assert len(server.bodies) == num_sent


def spent(home: Home) -> int:
    """The tokens in the accounts of endpoints."""
    accounts = home.files.glob(f"{home.root}/endpoints/*/*.json")
    return sum(json.loads(home.files.cat_file(account))["tokens"] for account in accounts)


def test_every_try_that_may_be_paid_for_counts_and_none_is_sent_beyond_the_budget(
    serve: Serve, disk: Home
) -> None:
    server = serve(lambda body, index: half())
    asked = config(server, budget={"tokens": 700}, retries=8)
    [[sample]], usage = ask(asked, request(), home=disk)
    assert len(server.bodies) == usage.requests == 2
    assert sample.fault == UNASKED and "budget.tokens is 700" in (sample.reason or "")
    assert 300 < spent(disk) <= 700


def test_try_that_fails_counts_beside_the_reply_that_came(serve: Serve, disk: Home) -> None:
    server = serve(lambda body, index: completion(THOUGHT) if index else half())
    [[sample]], _ = ask(config(server, budget={"tokens": 9_000}), request(), home=disk)
    assert sample.status == "ok" and spent(disk) > 16 + 200

    refused = serve(lambda body, index: completion(THOUGHT) if index else refusal(500, "x"))
    before = spent(disk)
    ask(config(refused, budget={"tokens": 9_000}), request(), home=disk)
    assert spent(disk) == before + 16, "a refusal costs nothing"


def test_request_that_is_given_up_is_charged_with_the_most(serve: Serve, disk: Home) -> None:
    """As a training does with a judge that is late."""
    server = serve(lambda body, index: completion(THOUGHT))
    server.seconds = 0.5

    async def run() -> None:
        engine = EndpointEngine(config(server, budget={"tokens": 9_000}), home=disk)
        asking = asyncio.ensure_future(engine.generate([request()]))
        while not server.bodies:
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await engine.stop()

    asyncio.run(run())
    assert spent(disk) > 200


def test_address_is_one_account_with_a_slash_at_its_end_or_without(
    serve: Serve, disk: Home
) -> None:
    server = serve(lambda body, index: completion(THOUGHT, usage={}))
    ask(config(server, budget={"tokens": 400}), request(), home=disk)
    [[sample]], _ = ask(
        config(server, url=f"{server.url}/", budget={"tokens": 400}), request(), home=disk
    )
    assert sample.fault == UNASKED and len(server.bodies) == 1


def test_server_that_asks_to_wait_longer_than_a_request_may_take_is_away(serve: Serve) -> None:
    server = serve(lambda body, index: refusal(429, "slow", retry_after_ms="900"))
    [sample], _ = ask_one(server, timeout_seconds=0.1)
    assert sample.fault == UNREACHABLE and "answers 429 for 0.3 s" in (sample.reason or "")


def test_key_is_sent_from_its_variable_and_none_without_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    server = serve(lambda body, index: completion(THOUGHT))
    ask(config(server, key_variable="TOWN_KEY"), request(), key=KEY)
    ask(config(server), request())
    assert server.keys == [f"Bearer {KEY}", "Bearer none"]


def test_key_stands_in_no_configuration(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWN_KEY", KEY)
    server = serve(lambda body, index: completion(THOUGHT))
    asked = config(server, key_variable="TOWN_KEY")
    assert asked.endpoint is not None
    key = asked.endpoint.read_key()
    assert key is not None and key.get_secret_value() == KEY
    assert KEY not in asked.model_dump_json() + repr(asked) + repr(key) + asked.version


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        (lambda: listing(MODEL, "town-9"), None),
        (lambda: refusal(404, "there is no list"), None),
        (lambda: listing("town-9"), "has no model 'town-1'; set model to one of its own, such as"),
        (lambda: refusal(401, KEY), r"refuses the key \(401\); set the environment variable TOWN"),
        (lambda: refusal(503, "loading"), "answers 503 when asked for its models"),
        (lambda: Response("<html>"), "no OpenAI-compatible server"),
        (
            lambda: Response(status_code=302, headers={"location": "http://elsewhere/v1/models?a"}),
            "redirects to http://elsewhere/v1; set endpoint.url",
        ),
    ],
)
def test_server_is_asked_for_its_models_before_work(
    models: Callable[[], Response],
    sentence: str | None,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOWN_KEY", KEY)
    server = serve(lambda body, index: completion(THOUGHT))
    server.models = models
    endpoint = config(server, key_variable="TOWN_KEY").endpoint
    assert endpoint is not None
    if sentence is None:
        check_endpoint(endpoint, MODEL)
    else:
        with pytest.raises(ValueError, match=sentence) as seen:
            check_endpoint(endpoint, MODEL)
        assert KEY not in str(seen.value)
    assert server.keys == [f"Bearer {KEY}"]


def test_server_of_another_kind_is_told_before_work() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            connection.sendall(b"SSH-2.0-town\r\n")
            connection.close()

        greeting = threading.Thread(target=greet, daemon=True)
        greeting.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        with pytest.raises(ValueError, match="is no OpenAI-compatible server"):
            check_endpoint(EndpointConfig(url=url), MODEL)
        greeting.join()


def test_server_that_is_away_and_a_missing_key_are_told_before_work() -> None:
    with scripted(lambda body, index: completion(THOUGHT)) as server:
        gone = config(server).endpoint
    keyed = config(server, key_variable="TOWN_KEY_UNSET").endpoint
    assert gone is not None and keyed is not None
    with pytest.raises(ValueError, match=f"no server answers at endpoint.url {server.url}"):
        check_endpoint(gone, MODEL)
    with pytest.raises(ValueError, match="key_variable is TOWN_KEY_UNSET, and that environment"):
        check_endpoint(keyed, MODEL)
