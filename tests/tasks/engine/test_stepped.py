"""A model that runs in the process of its callers: vLLM's CPU build on the scale model."""

import asyncio
from contextlib import suppress

import psutil
import pytest

from flows.recipe import load_recipe
from tasks.engine.stepped import EngineStopped
from tasks.engine.usage_counter import UsageCounter
from tasks.engine.vllm_core import Core, load_core

# vLLM's libraries warn of their own deprecations while they load.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PROMPT = {"prompt_token_ids": [1, 2, 3]}


def endless(num_samples: int) -> object:
    """Returns parameters of samples that go on for a thousand tokens."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=num_samples,
        max_tokens=1000,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def engine_processes() -> set[int]:
    """The processes below this one in which vLLM runs a model apart."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "EngineCore" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


async def until_idle(core: Core) -> None:
    while core.llm.has_unfinished_requests():
        await asyncio.sleep(0.01)


def test_cancelled_request_takes_no_further_step_and_a_stop_ends_the_others() -> None:
    async def use() -> None:
        counter = UsageCounter()
        before = engine_processes()
        core = await load_core(load_recipe("harbour").engine, counter)
        assert engine_processes() == before

        cancelled = asyncio.create_task(core.generate("1", PROMPT, endless(4)))
        while not counter.usage.output_tokens:
            await asyncio.sleep(0.01)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await asyncio.wait_for(until_idle(core), timeout=10)
        assert counter.usage.output_tokens < 4000

        left = asyncio.create_task(core.generate("2", PROMPT, endless(1)))
        await asyncio.sleep(0)
        core.stop()
        with pytest.raises(EngineStopped):
            await left
        with pytest.raises(EngineStopped):
            await core.generate("3", PROMPT, endless(1))

    asyncio.run(use())
