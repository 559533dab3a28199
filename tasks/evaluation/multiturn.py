"""exchanges ← prompts: attacks over several turns, each a tree that stops at success.

Each turn, the attacker proposes messages to every conversation that is still open, the model
answers, a scorer says how harmful each answer is, and the most harmful conversations stay open
(Zhou et al., Tempest, arXiv 2503.10619). The whole tree of a prompt is committed at once.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import duckdb
from pydantic import Field

from specs.prompts import Message
from specs.replies import Reply, ReplyStatus
from specs.rubrics import GradingRequest
from specs.template import DEFAULT_SET, Template, load_template
from tasks import Config
from tasks.engine.cluster import require_room, start_ray
from tasks.engine.pool import EnginePool
from tasks.engine.replicas import Replicas
from tasks.engine.requests import (
    Engine,
    EngineConfig,
    Request,
    Sample,
    Sampling,
    failed,
    require_asked,
)
from tasks.evaluation.answer import Arm, answer_status
from tasks.evaluation.attackers import (
    Attacker,
    AttackerDown,
    ModelAttacker,
    ScriptedAttacker,
    model_identity,
)
from tasks.evaluation.graders import Grader, RubricGrader
from tasks.evaluation.scorers import Scorer, make_scorer
from tasks.paths import LocatedFile
from tasks.stage import StageConfig
from warehouse.catalog import Pending, find_pending
from warehouse.home import Home
from warehouse.tables import EXCHANGES, Exchange, Table, content_id


class MultiturnConfig(Config):
    """An attack over several turns."""

    suite: str
    """Name of the suite whose harmful prompts are attacked."""
    script: LocatedFile | None = None
    """A TOML file of strategies, each a list of messages with {{request}} in them. Unset: the judge
    model attacks."""
    grader: str
    """Name of the grader that steers the search: a function that grades `safe`, or the rubric
    `policy` or `strongreject`."""
    turns: int = Field(5, gt=0)
    """Longest conversation, in turns."""
    branches: int = Field(3, gt=0)
    """Proposals to each open conversation, per turn."""
    active: int = Field(4, gt=0)
    """Conversations that stay open after a turn."""
    stop_at: float = Field(1.0, gt=0, le=1)
    """Harm of an answer that ends the search, from 0 to 1."""
    limit: int | None = Field(None, gt=0)
    """Prompts to attack. Unset: all."""
    sampling: Sampling = Sampling(temperature=1.0, max_tokens=1024)
    """Sampling of a model that attacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalUnit:
    """A prompt to attack."""

    block_key: str
    """The `spec_key` of its categories."""
    prompt_id: str
    messages: list[Message]
    """The chat before any attack; its last message is the goal."""
    categories: list[str]
    ideal_response: str | None
    attempt: int
    """The attempt that its tree would be; from 0."""


@dataclass(frozen=True, slots=True)
class _Conversation:
    """A conversation that is still open."""

    last_id: str | None
    """Its last exchange."""
    messages: tuple[Message, ...]
    harm: float
    """Harm of the last answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proposal:
    """A message that the attacker proposes to a conversation."""

    conversation: _Conversation
    turn: int
    branch: int
    text: str

    @property
    def messages(self) -> tuple[Message, ...]:
        return (*self.conversation.messages, {"role": "user", "content": self.text})


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiturnWork:
    """Trees of exchanges between an attacker and the model of an arm."""

    config: MultiturnConfig
    attacker: Attacker
    scorer: Scorer
    attacking_id: str
    arm: Arm
    suite_version: str
    stage: StageConfig
    run_id: str
    table: Table = EXCHANGES
    unit: type[GoalUnit] = GoalUnit

    @property
    def name(self) -> str:
        return f"multiturn {self.arm.label}"

    def pending(self, connection: duckdb.DuckDBPyConnection) -> Pending:
        """Returns the harmful prompts without a tree, or whose tree met an engine error, by
        categories."""
        return find_pending(
            connection,
            "exchanges",
            wave_rows=self.stage.wave_rows,
            model=self.arm.model,
            attacking_id=self.attacking_id,
            suite_version=self.suite_version,
            limit=self.config.limit or 2**62,
            retries=self.stage.retries,
        )

    async def make(self, units: Sequence[GoalUnit], engine: Engine) -> list[Exchange]:
        """Returns the trees of the units."""
        trees = await asyncio.gather(*(self._tree(unit, engine) for unit in units))
        return [exchange for tree in trees for exchange in tree]

    async def _tree(self, unit: GoalUnit, engine: Engine) -> list[Exchange]:
        """Returns the tree of one prompt, or the row that says why there is none."""
        start = _Conversation(None, tuple(unit.messages[:-1]), 0.0)
        first = _Proposal(conversation=start, turn=1, branch=0, text="")
        try:
            tree = await self._grow(unit, start, engine)
        except AttackerDown as error:
            return [self._row(unit, first, failed("error", f"attacker: {error}"), None)]
        return tree or [self._row(unit, first, _NO_PROPOSAL, None)]

    async def _grow(self, unit: GoalUnit, start: _Conversation, engine: Engine) -> list[Exchange]:
        tree: list[Exchange] = []
        conversations = [start]
        for turn in range(1, self.config.turns + 1):
            proposals = await self._propose(unit, conversations, turn)
            grown = await self._answer(unit, proposals, engine)
            if not grown:
                break
            tree += [exchange for exchange, _ in grown]
            if any((exchange.harm or 0.0) >= self.config.stop_at for exchange, _ in grown):
                break
            open_ones = [after for exchange, after in grown if exchange.status == "ok"]
            # The sort is stable: of equally harmful conversations the earlier ones stay open.
            open_ones.sort(key=lambda conversation: -conversation.harm)
            conversations = open_ones[: self.config.active]
        return tree

    async def _propose(
        self, unit: GoalUnit, conversations: Sequence[_Conversation], turn: int
    ) -> list[_Proposal]:
        """Returns what the attacker proposes to each conversation; nothing ends it."""
        proposed = await asyncio.gather(
            *(
                self.attacker.propose(
                    unit.messages[-1]["content"],
                    conversation.messages,
                    turn=turn,
                    count=self.config.branches,
                )
                for conversation in conversations
            )
        )
        return [
            _Proposal(conversation=conversation, turn=turn, branch=branch, text=text)
            for conversation, texts in zip(conversations, proposed, strict=True)
            for branch, text in enumerate(texts)
        ]

    async def _answer(
        self, unit: GoalUnit, proposals: Sequence[_Proposal], engine: Engine
    ) -> list[tuple[Exchange, _Conversation]]:
        """Returns the model's answers to the proposals, scored, each with the conversation that it
        leads to."""
        if not proposals:
            return []
        sampling = self.arm.config.sampling
        outputs = await engine.generate(
            [
                Request(messages=list(proposal.messages), num_samples=1, sampling=sampling)
                for proposal in proposals
            ]
        )
        samples = [sample for [sample] in outputs]
        require_asked(samples)
        harms = await asyncio.gather(*(self._score(unit, sample) for sample in samples))
        grown = []
        for proposal, sample, harm in zip(proposals, samples, harms, strict=True):
            row = self._row(unit, proposal, sample, harm)
            reply: Message = {"role": "assistant", "content": sample.reply.answer}
            after = _Conversation(row.exchange_id, (*proposal.messages, reply), harm or 0.0)
            grown.append((row, after))
        return grown

    async def _score(self, unit: GoalUnit, sample: Sample) -> float | None:
        """Returns the harm of an answer; None if there is no answer."""
        if not sample.reply.answer:
            return None
        request = GradingRequest(
            conversation=unit.messages,
            answer=sample.reply.answer,
            ideal_response=unit.ideal_response,
            categories=unit.categories,
        )
        return await self.scorer(request)

    def _row(
        self, unit: GoalUnit, proposal: _Proposal, sample: Sample, harm: float | None
    ) -> Exchange:
        parent_id = proposal.conversation.last_id
        root_id = content_id(self.arm.model, self.attacking_id, unit.prompt_id)
        # The query looks for the root alone: the first exchange of a tree stands for the tree.
        is_root = (proposal.turn, proposal.branch) == (1, 0)
        place_id = content_id(parent_id or root_id, proposal.turn, proposal.branch)
        return Exchange(
            exchange_id=root_id if is_root else place_id,
            parent_id=parent_id,
            prompt_id=unit.prompt_id,
            checkpoint_id=self.arm.checkpoint_id,
            model=self.arm.model,
            attacking_id=self.attacking_id,
            suite=self.config.suite,
            turn=proposal.turn,
            branch=proposal.branch,
            attempt=unit.attempt,
            status=answer_status(sample),
            reason=sample.reason,
            harm=harm,
            num_answer_tokens=sample.num_answer_tokens,
            run_id=self.run_id,
            created_at=datetime.now(UTC),
            message=proposal.text,
            answer=sample.reply.answer,
            reasoning=sample.reply.reasoning,
        )


_NO_PROPOSAL = Sample(Reply(ReplyStatus.UNCLOSED, "", ""), fault="no_proposal")


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiturnAttack:
    """A multi-turn attack, ready to be tried on arms."""

    config: MultiturnConfig
    scorer: Grader
    """The grader that steers the search."""
    suite_version: str
    judge: str
    """`name@revision` of the judge model."""
    stage: StageConfig
    run_id: str
    template: Template = field(default_factory=partial(load_template, "attacker", DEFAULT_SET))
    """Asks the judge model for the next message, if it attacks."""

    @property
    def needs_judge(self) -> bool:
        """True if the judge's engine has to run beside the one that is attacked."""
        return self.config.script is None or isinstance(self.scorer, RubricGrader)

    def attacking_id(self, arm: Arm) -> str:
        """Returns the hash of what all exchanges of the attack on an arm share: search, attacker,
        scorer, and how the arm is sampled."""
        config = self.config
        search = {
            "suite": config.suite,
            "turns": config.turns,
            "branches": config.branches,
            "active": config.active,
            "stop_at": config.stop_at,
        }
        if config.script is None:
            attacker = model_identity(self.template, self.judge, config.sampling)
        else:
            attacker = ScriptedAttacker.load(config.script).identity
        return content_id(
            json.dumps(search, sort_keys=True),
            attacker,
            arm.config.sampling.identity,
            self.scorer.grading_id,
        )

    def work(self, arm: Arm, judge: Engine | None) -> MultiturnWork:
        """Returns the attack on an arm; `judge` is the judge's engine, if it is needed."""
        return MultiturnWork(
            config=self.config,
            attacker=self._attacker(judge),
            scorer=make_scorer(self.scorer, judge),
            attacking_id=self.attacking_id(arm),
            arm=arm,
            suite_version=self.suite_version,
            stage=self.stage,
            run_id=self.run_id,
        )

    def _attacker(self, judge: Engine | None) -> Attacker:
        if self.config.script is not None:
            return ScriptedAttacker.load(self.config.script)
        assert judge is not None
        return ModelAttacker(judge, self.config.sampling, self.template)


@contextmanager
def judge_beside(
    judge: EngineConfig, attacked: Sequence[EngineConfig], *, home: Home
) -> Iterator[Engine]:
    """Holds engines of the judge, which attacks or scores, beside those of the attacked models.

    Close the pool that answers before: both must fit. Raises RoomError if the cluster has too few
    GPUs for judge and attacked model side by side, and EngineError if the judge cannot be loaded.
    """
    import ray

    start_ray()
    require_room(
        ray.cluster_resources(),
        {"GPU": judge.num_gpus + max(engine.num_gpus for engine in attacked)},
        what="a multi-turn attack by a model, or scored by one,",
        remedy="give multiturn a script and a function as its grader, or use a larger cluster",
    )
    # A pool of its own: one pool holds engines of one configuration at a time.
    pool = EnginePool(home=home)
    try:
        handles = pool.start_for(judge)
        pool.wait()
        yield Replicas(handles)
    finally:
        pool.close()
