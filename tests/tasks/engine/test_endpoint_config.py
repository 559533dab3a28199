"""What a recipe says of an endpoint is checked before work, and names what its rows are made by."""

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from flows.preflight import check
from flows.recipe import Recipe, RecipeError, load_recipe
from tasks.engine.pool import actor_options
from tasks.engine.requests import EngineConfig
from warehouse.home import Home

URL = "http://127.0.0.1:1/v1"
KEY = "sk-very-secret-0123456789"


def engine(**options: Any) -> EngineConfig:
    endpoint = {"url": URL, **options.pop("endpoint", {})}
    return EngineConfig.model_validate({"model": "town-1", "endpoint": endpoint, **options})


@pytest.mark.parametrize(
    ("endpoint", "sentence"),
    [
        ({"url": "127.0.0.1:8000"}, "url is '127.0.0.1:8000'; give the address of the API"),
        ({"url": "http:///v1"}, "give the address of the API"),
        ({"url": "http://town:port/v1"}, "give the address of the API"),
        ({"url": f"http://me:{KEY}@town/v1"}, "url holds more than an address"),
        ({"url": f"http://town/v1?key={KEY}"}, "url holds more than an address"),
        ({"url": f"me:{KEY}@town/v1"}, "url holds more than an address"),
        ({"url": "http://[::1/v1"}, "url is 'http://[::1/v1'; give the address of the API"),
        ({"url": "http://the town/v1"}, "url is 'http://the town/v1'; give the address of the API"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds: Input should be a finite number"),
        ({"key_variable": KEY}, "key_variable is no name of an environment variable in capitals"),
        ({"budget": {}}, "budget limits nothing"),
        ({"budget": {"money": 3}}, "budget.money is 3 and there are no prices"),
        ({"body": {"n": 3}}, "body has 'n', which the engine sets itself"),
        ({"body": {"API_KEY": KEY}}, "body has 'API_KEY', and every row would show it"),
        ({"body": {"since": date(2026, 11, 28)}}, "body holds a value that JSON has not"),
    ],
)
def test_endpoint_that_cannot_be_one_is_told(endpoint: dict[str, Any], sentence: str) -> None:
    """And no key that was written into the recipe is repeated."""
    with pytest.raises(RecipeError) as seen:
        load_recipe("harbour", overrides=[f"judge_engine.endpoint={toml({'url': URL} | endpoint)}"])
    assert sentence in str(seen.value) and KEY not in str(seen.value)


@pytest.mark.parametrize(
    "override",
    [
        f"judge_engine.endpoint.api_key='{KEY}'",
        f"judge_engine.endpoint='http://me:{KEY}@town/v1'",
        f"judge_engine={{model = 'town-1', endpoint = {{url = '{URL}', api_key = '{KEY}'}}}}",
    ],
)
def test_key_in_an_override_is_not_repeated(override: str) -> None:
    with pytest.raises(RecipeError, match=r"--set judge_engine.*=…: ") as seen:
        load_recipe("harbour", overrides=[override])
    assert KEY not in str(seen.value)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {toml(one)}' for key, one in value.items())}}}"
    return f"'{value}'" if isinstance(value, str) else str(value)


def test_body_may_hold_tables_and_lists() -> None:
    body = {"reasoning": {"effort": "low"}, "stop": ["END"]}
    assert '"reasoning": {"effort": "low"}' in engine(endpoint={"body": body}).version


@pytest.mark.parametrize("key", ["sk-1\nsk-2", "sk-…"])
def test_key_that_no_header_can_hold_is_told_without_the_key(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWN_KEY", key)
    endpoint = engine(endpoint={"key_variable": "TOWN_KEY"}).endpoint
    assert endpoint is not None
    with pytest.raises(ValueError, match=r"variable TOWN_KEY, .* holds a line break or a") as seen:
        endpoint.read_key()
    assert key not in str(seen.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_model_len": 4096}, "max_model_len is set and the model stands behind an endpoint"),
        ({"engine_args": {"seed": 3}}, "engine_args is set"),
        ({"replicas": 64}, "replicas is 64 and endpoint.max_in_flight 32"),
    ],
)
def test_setting_without_effect_on_an_endpoint_is_refused(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError, match=sentence):
        engine(**options)


def test_rows_name_the_model_and_not_the_place() -> None:
    """A server that is restarted elsewhere, with another key and budget, makes no row stale."""
    moved = {"url": "https://elsewhere.example/v1", "key_variable": "KEY", "max_in_flight": 3}
    assert engine().version == engine(endpoint=moved).version == 'town-1@main {"endpoint": true}'
    others = [
        engine(revision="2026-11"),
        engine(reasons=False),
        engine(endpoint={"body": {"reasoning_effort": "high"}}),
        EngineConfig(model="town-1"),
    ]
    assert len({engine().version, *(other.version for other in others)}) == 5


def test_endpoint_takes_no_gpu_and_no_processor() -> None:
    options = actor_options(engine(replicas=4))
    assert (options["num_cpus"], options["num_gpus"], engine().num_gpus) == (0, 0, 0)


def recipe(*overrides: str, section: str = "engine") -> Recipe:
    """Harbour with an endpoint in place of its engine."""
    data = load_recipe("harbour").model_dump()
    data[section] = engine().model_dump()
    return Recipe.model_validate(data)


@pytest.mark.parametrize("command", ["train", "run"])
def test_model_behind_an_endpoint_is_not_trained(command: str) -> None:
    with pytest.raises(RecipeError, match=r"sft trains engine\.model, which stands behind engine"):
        recipe().require(command)
    with_student = recipe().model_copy(update={"student": load_recipe("harbour").engine})
    with_student.require(command)
    recipe(section="judge_engine").require(command)


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ({"budget": 20}, r"evaluate\.budget is set, and the reasoning of a model behind an"),
        ({"faithfulness": {}}, r"evaluate\.faithfulness is set"),
        ({"suites": ["harbour_injection_raw"]}, "forges the marks of a chat template, which an"),
    ],
)
def test_evaluation_that_an_endpoint_cannot_answer_is_told(
    part: dict[str, Any], sentence: str, disk: Home
) -> None:
    data = recipe().model_dump()
    data["evaluate"] |= part
    with pytest.raises(ValueError, match=sentence):
        check("evaluate", Recipe.model_validate(data), disk.url)


def test_server_that_is_away_is_told_with_its_section(disk: Home) -> None:
    data = recipe(section="judge_engine").model_copy(
        update=dict.fromkeys(("sft", "dpo", "rl", "evaluate", "calibrate", "ablate"))
    )
    with pytest.raises(RecipeError, match=r"^judge_engine: no server answers at endpoint\.url"):
        check("refresh", data, disk.url)
