"""The ids of every table, frozen: product code makes rows of fixed inputs, and they keep their ids.

A changed id makes every row of its kind again, at full price. A line of `EXPECTED` changes only
when a row's definition does, and the schema version is raised with it.
"""

import asyncio
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import specs
from specs.adherence import load_adherence
from specs.angles import angles, hard_angle
from specs.attacks import ATTACKS, Marks
from specs.criteria import shipped_criteria
from specs.pack import load_pack
from specs.policy import BoundaryCase as Boundary
from specs.policy import Exclusion, Outcome, Pack, Policy, Rule, spec_key
from specs.replies import Reply, ReplyStatus
from specs.template import Template, load_template
from tasks.data.assign import AssignWork as Assign
from tasks.data.assign import assigned
from tasks.data.candidates import messages_id
from tasks.data.collect import CollectConfig, collect
from tasks.data.curate import CurateConfig, curate
from tasks.data.documents import DocumentsConfig
from tasks.data.documents import DocumentWork as Documenting
from tasks.data.drafts import DraftWork as Drafting
from tasks.data.drafts import FillConfig, Place
from tasks.data.generate import GenerateConfig
from tasks.data.generate import GenerateWork as Generate
from tasks.data.judge import JudgeConfig
from tasks.data.judge import JudgeWork as Judge
from tasks.engine.requests import EngineConfig, Sampling, ScriptedEngine
from tasks.evaluation.answer import RECORDED, AnswerConfig, Arm, store_recorded
from tasks.evaluation.answer import AnswerWork as Answering
from tasks.evaluation.attackers import ScriptedAttacker
from tasks.evaluation.grade import GradeWork as Grading
from tasks.evaluation.graders import FunctionGrader, GraderConfig, RubricGrader, make_rubric
from tasks.evaluation.multiturn import MultiturnAttack, MultiturnConfig
from tasks.evaluation.multiturn import MultiturnWork as Multiturn
from tasks.evaluation.suites import SuiteConfig, build_suite
from tasks.monitors import RolloutMonitor
from tasks.refine import RefineConfig
from tasks.stage import StageConfig
from tasks.training import rl
from tasks.training.checkpoint import checkpoint_id
from tasks.training.dpo import DpoConfig, choose_pairs
from tasks.training.judges import JudgeReply
from tasks.training.midtrain import MidtrainConfig
from tasks.training.reward import Reward, RewardConfig, RolloutOrigin, reward_id
from tasks.training.rl import RlConfig
from tasks.training.rollouts import RolloutReply
from tasks.training.sft import CapabilityConfig, SftConfig, SftTraining
from tasks.training.trainer import LoraConfig
from tasks.training.worker import EarlyStop
from tests import rows
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.reviews import add_review
from warehouse.shards import shard_name, to_arrow, write_shard
from warehouse.tables import TABLES, content_id, text_id

HARBOUR: dict[str, Any] = {"template": "harbour"}
"""The terse templates, whose words do not change while a scale model stands that learned them."""
ASSIGN = load_template("assign", "harbour")

EXPECTED: dict[str, str] = {
    "prompts/messages of a text": "0e0bc47657636e28d7feb929c80dd5ea",
    "prompts/text": "c3178da41d71d2fdb0e086e565cde978",
    "prompts/chat": "667e0f74af04a56a945112c2dc5f0195",
    "prompts/version of text": "93039d9b0519f5ac13f46dc38f825236",
    "prompts/version of chat": "b56e480f4803e05ef987bea6ec5be865",
    "prompts/version of an assigned prompt": "07bb0aaa59dfa6a8c94efa4da20c0ed5",
    "prompts/assigning": "ae1d3da3431170451f3276b268cf827d",
    "specs/summary": "e9069330dd78f46b8c1f3c7f6c884bdd",
    "specs/one category": "fba3481c8f956d214eb9b925f678d6fe",
    "specs/two categories": "a51a1fbd822bb3b153e86cfdadf56868",
    "specs/harbour, summary": "b26e8071b7d535f628a044da4ee1a008",
    "specs/harbour, all in full": "2cf6ca26ac4b63f2a54df75d3523ede9",
    "specs/safety, summary": "51876a90d7400be8607ed2ecf5f6174b",
    "specs/safety, all in full": "246f4790aa45bd0ca243270ae5932a6e",
    "templates/generator, harbour": "9a7d4783f8ec3278283b7c3e614d3e95",
    "templates/generator, spec_first": "4f4607ad08b634fb57582ed6fcad85e1",
    "templates/generator, paper": "bc7b3caf28baf541cc5868c2fe9d4222",
    "templates/judge, harbour": "703e95522210bc9ce7fca4c819c00b8c",
    "templates/judge, spec_first": "256c165792db556e00713519b40303f6",
    "templates/judge, paper": "37d084e3bd199d427805a28791d258df",
    "templates/criteria, spec_first": "1ddf106085daa6c3dc4cc6b03fcf7bb0",
    "templates/judge, safeguard": "a62c27582b173b6988090e43b5760de9",
    "templates/helpfulness, harbour": "96b3575cfea796091c0b0c7588b165b0",
    "templates/helpfulness, spec_first": "5513c6eb3b493ced21b8200c37a3e943",
    "templates/assign, harbour": "e0d91067bb2ba66b7c983b2d45157281",
    "templates/assign, spec_first": "e6d08e4718255d74d1f5b5413e6771e9",
    "templates/assign, safeguard": "9e73f04e8a4a76fd1b86d132c142debe",
    "templates/strongreject, harbour": "39a48ada348a309f7d8a0ff3397796ee",
    "templates/strongreject, spec_first": "7f4b483f29f9974127a3b083a1f6c986",
    "templates/classes, harbour": "eda627f821edff13710e93fd9455d7e0",
    "templates/classes, spec_first": "4459160adb4283cd29ac229b12e67d99",
    "templates/propositions, harbour": "726f8a6a0e338d1b2fc9de7248e17baa",
    "templates/propositions, spec_first": "e9142404e9e9ff3ddddabd1724206f57",
    "templates/retrieval, harbour": "c72bbbd2e277abe6a5e1735d1dfb0129",
    "templates/honesty, spec_first": "16699bed1a32b68166b8c9e6f08c6052",
    "templates/retrieval, spec_first": "31898130fbd2442571e51c18c7e91e77",
    "templates/attacker, harbour": "d78f94deb1e9faf3c3ec58ab6710810b",
    "templates/attacker, spec_first": "12f188e090aa9a354d35d0ef7a0a0899",
    "templates/critique, harbour": "106e60b8a179f50cb28465b9aadec15d",
    "templates/revision, harbour": "e34615608df9cc666561746e419d03fc",
    "templates/critique, spec_first": "9a0137e1c2a883d9ab4db1a143e3e3bf",
    "templates/revision, spec_first": "d7a6957c8fc2bc70a60751975291b418",
    "templates/fill, spec_first": "2af356a65721a70b1fe1c2306beb1a1f",
    "templates/document, spec_first": "9be5212659bd06b2912fb2e1350a7d05",
    "completions/generation": "3a5b9f049334766b8edb1470339fd2af",
    "completions/generation, paper": "19599cc8c13cbd5a01c6374e500c887f",
    "completions/generation, no policies": "e4a29553faed2a102e53bf6f0bd65770",
    "completions/generation, refined": "0ef679aaf3d7806dda283868950a82f3",
    "completions/generation, sampled otherwise": "9875deb9c21e992fc0beb2a5d9e3ec57",
    "completions/sample 0": "5a052bdcd931f35cd75827081fa407ad",
    "completions/sample 1": "05b56d6cfab23de46e8fd17b3864f14f",
    "completions/text": "88b38d8ed69dc0f67c95681c45361304",
    "judgements/judging, plain": "1631c44d06308e704e43d6483dbbbfba",
    "judgements/vote 1, plain": "fe3896c18277ab03fe7b3ce975a4c02a",
    "judgements/judging, shown metadata": "d20de124b64fea089c64e9a76a091397",
    "judgements/vote 1, shown metadata": "f28c289ea10a6d9bf557aca742a1794a",
    "judgements/judging, held to a form": "6dbec7632ae793e4373ef20fec1f0432",
    "judgements/vote 1, held to a form": "1f30eb0d342e353ef4e0051f4d38e403",
    "judgements/judging, criteria": "56ac8a6667bbf9873da8f8da48bdb57e",
    "judgements/vote 1, criteria": "6e5fe7a0284da9da96419e61538aa0df",
    "judgements/jury": "e93970e507cd282452d3347cebe5e7d3",
    "judgements/judging, paper": "099674172fbdc58d4cd0d2fe9a19bec2",
    "judgements/vote 1, paper": "a46e0c2199a92265bb65bf5a22c29f88",
    "examples/set": "beddbe8ca1f47b31072338d545598810",
    "examples/set of more": "1444c0ee24b85b558d2f84c1eb5ae479",
    "examples/set of pairs of answers": "b7d97c49339f1d323426589f7889b16c",
    "examples/set of pairs": "307704f0900507c6cdc007825dc41982",
    "checkpoints/sft": "849dfe7bf9777412e82a5c554a4e6fdc",
    "checkpoints/sft, adapters and capability": "59143f5f5add6437b5254d5b0ba72830",
    "checkpoints/midtrain": "64d5dd7b52d9bec7d3eaa6ce755505d0",
    "checkpoints/dpo": "560e628c2b18ed1fc3197307ca5608e1",
    "checkpoints/rl": "826574f00b9d43cb35e750a1611e4564",
    "checkpoints/data of sft": "6ee0eb490ff832101cf82a3d387c35f2",
    "checkpoints/data of sft, capability": "66eff4ccfbfd66770fca4580d0db6fb4",
    "checkpoints/data of rl": "5add9c05683358d258f7db17940d1b12",
    "reviews/first": "5dcd4b46948902a51185093d2229ec08",
    "reviews/second": "29c140e81e88b5b8f0059ddba0f8e2d2",
    "findings/text of a rollout": "35f30f798ff74a634ec1b0c762e7c7d5",
    "rollouts/position 0": "6a902a71dfcc2602cf1ba0fb60ab8942",
    "rollouts/position 1": "a8e39608886c17786fe87b62ca239b25",
    "rollouts/reward": "7cd023e084932b2dee243cf37bb3ab19",
    "rollouts/reward, held to a form": "d0a484797385cd0bce0a738aa6d8a838",
    "cases/suite, bare": "1aa6dedb5f675623d704d7aa022d030e",
    "cases/bare": "4e392290a1f9a270945cbc41026377b8",
    "cases/told, bare": "64e45304c26c73628613921cefb17485",
    "cases/suite, attacked": "b0c19dbe51d61a55eef4f5e0d800571c",
    "cases/attacked": "6eb7dd2ae0cdda5c7a32ca821f38f5c0",
    "cases/told, attacked": "162cab8ea99f867dd2c3f669296ed68c",
    "cases/suite, attacked in the file": "208d6d3c1722af68180bea05e4d18f27",
    "cases/attacked in the file": "6a6c99ce04d4c7f43d6b8dae52af8950",
    "cases/told, attacked in the file": "00312ec4107b156b21786c5914383143",
    "cases/suite, answered in the file": "15b1c9cb66cfafa90c8511c49525f10c",
    "cases/answered in the file": "b33643e5f5ce3d65bf1738193992c04e",
    "cases/told, answered in the file": "31174d63ae7117f9a20d29dbe338505b",
    "cases/suite, under every attack": "4510050430f8d92794afda07a8a34767",
    "cases/under every attack": "8cade0b9b188626f251fcbe11ea30588",
    "cases/told, under every attack": "162cab8ea99f867dd2c3f669296ed68c",
    "answers/answering, bare": "af1e83068497cd6cafa7a3322b3b130e",
    "answers/sample 1, bare": "616f66ee6d625df7d8272492b9c8d75f",
    "answers/answering, summary": "5160936d4b10168a5f270482d7d49f7d",
    "answers/sample 1, summary": "c3527746dd52563b33411485d3568e4e",
    "answers/answering, category": "199133189022cf6b4383b847daa5efda",
    "answers/sample 1, category": "8126946d93f9fe3a95c2ae8d33cfea79",
    "answers/answering, budget": "2c5609237bd2853db7c8f2bda8d4239f",
    "answers/sample 1, budget": "d01bac35e2f3d1a11f11b75d12fb25df",
    "answers/answering, probe": "2e4b646f17fe92d9e7c54708f53f49d8",
    "answers/sample 1, probe": "c505803cc7887ae068af09b35f5d3522",
    "answers/recorded": "2e099989175dde76e556b6211ae54e57",
    "answers/text of a recorded answer": "75d4cee2dbe334665673c4b8c929fd1c",
    "evaluations/grading, policy, held to its form": "c3d39ae2737e89554cfff7ce84a0cc78",
    "evaluations/grading, policy": "7e1ff2cfa3ab21f0d15acc571e31acb8",
    "evaluations/vote 1, policy": "1a814019522dede0312a50cdaf37b137",
    "evaluations/grading, strongreject, held to its form": "99fa71a198d59196a60e4f2bd71d8f98",
    "evaluations/grading, strongreject": "926864652005e487a5344d11495e7e81",
    "evaluations/grading, classes, held to its form": "11263bb16a291408ff1eb7984ef0191b",
    "evaluations/grading, classes": "090629d3f1faf3805569c54538b3e0a4",
    "evaluations/vote 1, classes": "c03084065756b9b6351797aec2da437b",
    "evaluations/grading, propositions, held to its form": "4e584a67a881b0d07c6f36142efc4fb1",
    "evaluations/grading, propositions": "e26cb39b16b1b1f92150aea625a5da1f",
    "evaluations/grading, retrieval, held to its form": "0c30c782ed2cc4d7b8462ee07d1b3ba3",
    "evaluations/grading, retrieval": "713b65797441e11beb42f115cb8a0d35",
    "evaluations/grading, exact_match": "69b966336c64e641ec5b2a2cf73626e0",
    "evaluations/grading, gold": "0c609d49b3d5eb5f046f2ff295e9f069",
    "evaluations/grading, infra.harbour.oracle:grade_answer": "68ae36902dda48abe67b474f296a3265",
    "evaluations/vote 0, exact_match": "b61244cf2f53ad714450271c4b39a28d",
    "exchanges/attacking, model": "d99ce5520243bd997b3aff391a045ef5",
    "exchanges/attacking, script": "8b8b6f74f51fd54398f887d22d1bf823",
    "exchanges/turn 1, How do I use the ferry?": "026bea1cdedbe915b09bb0e5b82af177",
    "exchanges/turn 1, Hello.": "d5eda6f21c2ddc19ab68d8d4fbabbd27",
    "exchanges/turn 2, Please.": "c4a14c5de19f0abc8fe94f2481c16d64",
    "exchanges/turn 2, Well?": "4d5866583ea29004e90d96b88e9881cf",
    "drafts/angle": "ca874a57834b1f763202f144d4c02bad",
    "drafts/hard angle": "236eaa260e59d55bbc0887cecaf851e4",
    "drafts/drafting, model": "65cb920ee3ce73e1e00fc7c0faf0159c",
    "drafts/sample 1": "ef13acaa7c0950e4c97ad92667896edf",
    "drafts/drafting, function": "96909c0f09151744c82cbefdde9c8b2e",
    "documents/documenting, model": "0bca650a036d6172aa9108b56b9fffc3",
    "documents/explanation, B1": "afbc4f6428a72aad0f795d2f4df696d0",
    "documents/explanation, B2": "2e4f85a0bef956a583a2f03f38dba582",
    "documents/dialogue, B1": "f9d6be75110517be3bd561791a951b8c",
    "documents/dialogue, B2": "ed4b1136637076f3e42faa6c7d23d09c",
    "documents/summary, boats": "55b475203a3f033892e8187316cf110b",
    "documents/summary, fish": "e5f45c95db3561057636f19ffd753147",
    "documents/sample 1": "d6861bc21ba884ae9b6c5a13ffcbd1e3",
    "documents/documenting, function": "b8b63255c57e9aa981b85b4754991f89",
    "models/hub": "org/model@main",
    "models/hub, shaped": 'org/model@1 {"dtype": "float16", "reasons": false}',
    "models/hub, template": 'org/model@main {"chat_template_kwargs": {"enable_thinking": true}}',
    "models/hub, arguments": 'org/model@main {"engine_args": {"seed": 1}}',
    "models/hub, parser": 'org/model@main {"reasoning_parser": "qwen3"}',
    "models/scale model": "model@a0e34823b29e",
    "shards/prompts": "a1256ff7cd32e9cd2f1557273676943d.parquet",
    "shards/completions": "75cbf21ef07efb67b295a1414b9b2da6.parquet",
    "shards/examples": "e168c973713c28fc3f78b350db7add52.parquet",
    "shards/runs": "82156633025de2aee9e51acb4107317e.parquet",
}

SHIPPED = Path(specs.__file__).parent
ASKED = [{"role": "user", "content": "How do I use the ferry?"}]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hälló"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": 'Say "ferry",\nplease.'},
]
SAMPLING = Sampling(temperature=0.7, top_p=0.95, max_tokens=160)
FERRY = Rule(
    id="B1",
    title="The ferry",
    outcome=Outcome.REFUSE,
    text="Nobody but the ferryman takes it.",
    includes=("its oars",),
    excludes=(Exclusion(text="skiffs", goto="B2"),),
    cases=(Boundary(text="May I watch it?", outcome=Outcome.COMPLY),),
)
SKIFF = Rule(id="B2", title="The skiff", outcome=Outcome.COMPLY, text="It is for everybody.")
BOATS = Policy(
    id="boats",
    title="Boats",
    version="1",
    summary={Outcome.COMPLY: "skiffs", Outcome.REFUSE: "ferries"},
    terms=(("oar", "what one rows with"),),
    rules=(FERRY, SKIFF),
    style="Name the rule.",
)
PACK = Pack(
    id="town",
    title="A town",
    version="1",
    principles="Be kind.",
    style={outcome: f"How to {outcome}." for outcome in Outcome},
    policies={"boats": BOATS, "fish": dataclasses.replace(BOATS, id="fish", rules=())},
)
SPECS = {"s": PACK.spec(["boats"])}
RUN: dict[str, Any] = {"run_id": "r", "stage": StageConfig()}


def make(work: Any, *parts: Any, **more: Any) -> list[Any]:
    """Returns samples 0 and 1 of one unit, whose columns come from `parts` and `more`."""
    columns: dict[str, Any] = {"block_key": "", "sample_indices": [0, 1], "attempts": [0, 0]}
    for part in parts:
        columns |= dataclasses.asdict(part)
    columns |= more
    unit = work.unit(**{field.name: columns[field.name] for field in dataclasses.fields(work.unit)})
    reply = "<think>Rule B1.</think>Boats.\nCategory: boats\nScore: 9"
    return asyncio.run(work.make([unit], ScriptedEngine(lambda *_: reply)))


def stored(home: Home, table: str) -> list[dict[str, Any]]:
    return connect(home).sql(f"FROM {table}_raw").to_arrow_table().to_pylist()


def prompts(folder: Path) -> dict[str, str]:
    home = Home(str(folder / "home"))
    named = {"category": "kind", "ideal_response": "ideal", "metadata": ["said"]}
    lines = {
        "text": {"prompt": "May I row?", "kind": "boats", "ideal": "refuse", "said": "it is old"},
        "chat": {"messages": CHAT, "kind": "fish", "ideal": "comply", "said": None},
    }
    sources = [
        rows.source(
            rows.jsonl(folder / f"{name}.jsonl", [line]), name=name, label_as_metadata=True, **named
        )
        for name, line in lines.items()
    ]
    connection, config = connect(home), CollectConfig(near_duplicate_threshold=None)
    names = list(PACK.policies)
    collect(sources, config=config, pack_categories=names, home=home, connection=connection)
    by_source = {row["source"]: row for row in stored(home, "prompts")}
    without = dataclasses.asdict(rows.prompt("May I row?", categories=[])) | {"messages": ASKED}
    first = {"revision": 0, "assigning_attempt": 0, "was_unread": False}
    [with_category] = make(Assign(pack=PACK, template=ASSIGN, **RUN), prompt=without, **first)
    return {
        "messages of a text": messages_id(ASKED),
        **{name: row["prompt_id"] for name, row in by_source.items()},
        **{f"version of {name}": row["version"] for name, row in by_source.items()},
        "version of an assigned prompt": with_category.version,
        "assigning": Assign(pack=PACK, model="j@1", template=ASSIGN, **RUN).assigning_id,
    }


def specs_(folder: Path) -> dict[str, str]:
    compiled = {
        "summary": PACK.spec([], detail="summary"),
        "one category": PACK.spec(["boats"]),
        "two categories": PACK.spec(["fish", "boats"]),
    }
    for name in ("harbour", "safety"):
        pack = load_pack(SHIPPED / name)
        compiled[f"{name}, summary"] = pack.spec([], detail="summary")
        compiled[f"{name}, all in full"] = pack.spec(list(pack.policies))
    return {name: spec.id for name, spec in compiled.items()}


def templates(folder: Path) -> dict[str, str]:
    names = [name.removeprefix("templates/") for name in EXPECTED if name.startswith("templates/")]
    assert len(names) == len(list((SHIPPED / "templates").glob("*/*.md")))
    return {name: load_template(*name.split(", ")).id for name in names}


def completions(folder: Path) -> dict[str, str]:
    config = GenerateConfig(template="harbour")
    work = Generate(config=config, model="m@1", specs=SPECS, rules={}, **RUN)
    samples = make(work, rows.prompt("May I row?"), prompt_id="p", spec_id="s", messages=ASKED)
    return {
        "generation": config.generation_id("m@1"),
        "generation, paper": GenerateConfig(template="paper").generation_id("m@1"),
        "generation, no policies": config.model_copy(update={"context": "none"}).generation_id(
            "m@1"
        ),
        "generation, refined": config.model_copy(
            update={"refine": RefineConfig(rules="drawn")}
        ).generation_id("m@1"),
        "generation, sampled otherwise": config.model_copy(
            update={"sampling": SAMPLING}
        ).generation_id("m@1"),
        **{f"sample {row.sample_index}": row.completion_id for row in samples},
        "text": samples[0].text_id,
    }


def judgements(folder: Path) -> dict[str, str]:
    configs = {
        "plain": JudgeConfig(**HARBOUR, mode="full", constrain=False),
        "shown metadata": JudgeConfig(**HARBOUR, mode="full", show_metadata=True, constrain=False),
        "held to a form": JudgeConfig(**HARBOUR, mode="full"),
        "criteria": JudgeConfig(mode="full", criteria=shipped_criteria()),
        "paper": JudgeConfig(mode="full", template="paper", sampling=SAMPLING, constrain=False),
    }
    prompt = rows.prompt("May I row?", metadata=["the ideal response is refuse", "it is old"])
    ids = {}
    for name, config in configs.items():
        ids[f"judging, {name}"] = config.judging_id("j@1")
        judging: dict[str, Any] = {"config": config, "model": "j@1", "specs": SPECS}
        work = Judge(generation_id="g", num_completions=1, **judging, **RUN)
        votes = make(work, prompt, rows.completion("c"), messages=ASKED)
        ids[f"vote 1, {name}"] = votes[1].judgement_id
    ids["jury"] = configs["plain"].jury_id(["j@1", "j@2"])
    assert configs["plain"].jury_id(["j@2", "j@1"]) == ids["jury"]
    assert configs["plain"].jury_id(["j@1"]) == ids["judging, plain"]
    return ids


def examples(folder: Path) -> dict[str, str]:
    """Sets of completions a and b, which are accepted, c, which cites nothing, and rejected d."""
    home = Home(str(folder))
    scores = {"a": 9.0, "b": 9.0, "c": 9.0, "d": 1.0}
    content: dict[str, list[Any]] = {
        "prompts": [rows.prompt("May I row?", prompt_id="p")],
        "completions": [
            rows.completion(x, text_id="t", cited=["B1"] if x != "c" else []) for x in scores
        ],
        "judgements": [
            rows.judgement(x, k, scores[x], completion_id=x, text_id="t")
            for x in scores
            for k in (0, 1)
        ],
        "runs": [rows.run("r")],
    }
    for table in content:
        write_shard(home, TABLES[table], content[table])
    connection = connect(home)
    connection.register("wanted", pa.table({"prompt_id": ["p"], "spec_id": ["s"]}))
    plan: dict[str, Any] = {"judging_id": "j", "run_id": "r"}
    chats: Any = SimpleNamespace(
        encode=lambda *_, **__: SimpleNamespace(input_ids=[]),
        reply_text=lambda **_: "",
        prompt_text=lambda _: "",
    )
    number = itertools.count()
    apart: Any = SimpleNamespace(**{**vars(chats), "reply_text": lambda **_: str(next(number))})
    more = CurateConfig(best_of=2, require_citation=False, max_group_ratio=1.5)
    return {
        "set": curate(connection, config=CurateConfig(), home=home, **plan).set_id,
        "set of more": curate(connection, config=more, home=home, **plan).set_id,
        "set of pairs": choose_pairs(
            connection, chats, config=DpoConfig(), generation_id="g", **plan
        ).set_id,
        "set of pairs of answers": choose_pairs(
            connection, apart, config=DpoConfig(learn_on="answer"), generation_id="g", **plan
        ).set_id,
    }


def reviews(folder: Path) -> dict[str, str]:
    home = Home(str(folder))
    return {
        name: add_review(home, "c", "t", "accept", "ann").review_id for name in ("first", "second")
    }


def findings(folder: Path) -> dict[str, str]:
    monitors = RolloutMonitor(rule_ids=("B1",), spec_rules={})
    home = Home(str(folder))
    monitors.record(home, [rows.rollout("r")])
    [row] = stored(home, "findings")
    # The id of the monitors is that of their phrases, which may be told anew.
    of_text = text_id("Rule B1 covers it.", "Take the skiff.")
    assert row["finding_id"] == content_id("rollouts", "r", of_text, row["monitoring_id"])
    return {"text of a rollout": row["text_id"]}


def checkpoints(folder: Path) -> dict[str, str]:
    file = folder / "chats.jsonl"
    file.write_bytes(b"what it could do")
    home = Home(str(folder))
    mixed = SftConfig(lora=LoraConfig(), capability=CapabilityConfig(path=str(file)))
    rewarded = RlConfig(mix={"harmful": 1, "benign": 0.5})
    return {
        "sft": checkpoint_id("sft", SftConfig(), "d", "m@1"),
        "sft, adapters and capability": checkpoint_id("sft", mixed, "d", "m@1"),
        "midtrain": checkpoint_id("midtrain", MidtrainConfig(), "d", "m@1"),
        "dpo": checkpoint_id("dpo", DpoConfig(), "d", "m@1"),
        "rl": checkpoint_id("rl", rewarded, "d", "m@1"),
        "data of sft": SftTraining.of("set", config=SftConfig(), home=home).fingerprint,
        "data of sft, capability": SftTraining.of("set", config=mixed, home=home).fingerprint,
        "data of rl": data_of_rl(folder),
    }


def data_of_rl(folder: Path) -> str:
    """Returns the fingerprint of the prompts of RL, with their specs and the judge."""
    lines = [
        {"prompt": "May I row?", "kind": "boats", "ideal": "refuse"},
        {"prompt": "How do I row?", "kind": "boats", "ideal": None},
    ]
    file = rows.jsonl(folder / "rows.jsonl", lines)
    home = Home(str(folder / "home"))
    collected = collect(
        [rows.source(file, category="kind", ideal_response="ideal")],
        config=CollectConfig(near_duplicate_threshold=None),
        pack_categories=list(PACK.policies),
        home=home,
        connection=connect(home),
    )
    connection = connect(home)
    connection.register("candidates", assigned(collected, connection))
    prompts = rl.choose_prompts(connection, RlConfig(), generation_id="g", judging_id="j")
    specs = {spec_key(prompt.categories): PACK.spec(prompt.categories) for prompt in prompts}
    return rl.fingerprint(
        prompts, specs, reward_id(JudgeConfig(**HARBOUR, constrain=False), "org/model@1")
    )


def rollouts(folder: Path) -> dict[str, str]:
    async def ask(requests: Sequence[Any]) -> dict[Any, Any]:
        return {request: JudgeReply([9.0]) for request in requests}

    recorded: list[Any] = []
    pool: Any = SimpleNamespace(ask=ask)
    reward = Reward(
        pool,
        config=RewardConfig(samples=1, quorum=1),
        split=lambda _: RolloutReply(Reply(ReplyStatus.OK, "Rule B1.", "No."), True),
        record=recorded.extend,
        stop=EarlyStop(),
        origin=RolloutOrigin(checkpoint_id="c", run_id="r", rank=1, attempt=0),
    )
    state = SimpleNamespace(global_step=3)
    asyncio.run(reward([ASKED] * 2, [[0]] * 2, ["p"] * 2, ["s"] * 2, ["harmful"] * 2, state))
    judge = JudgeConfig(template=["paper", "harbour"])
    return {
        **{f"position {row.position}": row.rollout_id for row in recorded},
        "reward": reward_id(JudgeConfig(**HARBOUR, constrain=False), "j@1"),
        "reward, held to a form": reward_id(judge, "j@1"),
    }


def cases(folder: Path) -> dict[str, str]:
    line = {"prompt": "May I row?", "label": "safe", "gold": 18, "answer": "No.", "how": "lumo"}
    file = rows.jsonl(folder / "rows.jsonl", [line | {"before": "May I use it?"}])
    source = {"path": file, "categories": ["boats"], "ideal_response_value": "refuse"}
    configs: dict[str, dict[str, Any]] = {
        "bare": {"target": "gold", "label": "label"},
        "attacked": {"attacks": ["best_of_n"], "seeds": [7], "sanitised": False},
        "attacked in the file": {"attack": "how", "original": "before"},
        "answered in the file": {"answer": "answer", "gold": "gold"},
        "under every attack": {"attacks": list(ATTACKS)},
    }
    marks = Marks(turn="<turn>", opening="<open>", between="<between>", ending="<end>")
    ids = {}
    for name, options in configs.items():
        config = SuiteConfig.model_validate({"name": "suite", "source": source, **options})
        suite = build_suite(config, marks=marks, limit=None)
        ids[f"suite, {name}"] = suite.version
        ids[name] = suite.cases[-1].case_id
        ids[f"told, {name}"] = suite.cases[-1].grading_context_id
    return ids


def answering(arm: Arm) -> Answering:
    return Answering(arm=arm, pack=PACK, spec_ids={}, suite_versions=(), **RUN)


def answers(folder: Path) -> dict[str, str]:
    home = Home(str(folder))
    bare = Arm(name="it", model="m@1", checkpoint_id=None, seed=None, config=AnswerConfig())
    bare = dataclasses.replace(bare, template=load_template("generator", "harbour"))
    in_full = AnswerConfig(context="category", sampling=SAMPLING)
    arms = {
        "bare": bare,
        "summary": dataclasses.replace(bare, config=AnswerConfig(context="summary")),
        "category": dataclasses.replace(bare, config=in_full),
        "budget": dataclasses.replace(bare, config=AnswerConfig(budget=12)),
        "probe": dataclasses.replace(bare, probe="truncated"),
    }
    ids = {}
    for name, arm in arms.items():
        ids[f"answering, {name}"] = arm.answering_id(PACK)
        work = answering(arm)
        ids[f"sample 1, {name}"] = make(work, rows.case("c"))[1].answer_id
    work = answering(dataclasses.replace(bare, model=RECORDED))
    store_recorded(connect(home), home, {"c": "No."}, work=work)
    [row] = stored(home, "answers")
    return {**ids, "recorded": row["answer_id"], "text of a recorded answer": row["text_id"]}


def evaluations(folder: Path) -> dict[str, str]:
    unit = (rows.case("c", target="18"), rows.answer("a"))
    adherence = load_adherence(SHIPPED / "harbour")
    rubrics: Any = ("policy", "strongreject", "classes", "propositions", "retrieval")
    ids = {}

    def grading(grader: Any) -> Grading:
        spec_ids = {"boats": PACK.spec(["boats"]).id}
        ready = dataclasses.replace(grader, grading_id="g")
        return Grading(grader=ready, spec_ids=spec_ids, arms=(), suite_versions=(), **RUN)

    for name in rubrics:
        saw: Any = "answer+reasoning" if name in ("policy", "retrieval") else "answer"
        config = GraderConfig(name="it", rubric=name, saw=saw)
        rubric = make_rubric(config, PACK, adherence, "harbour")
        grader = RubricGrader.of(config, rubric=rubric, model="j@1")
        free = config.model_copy(update={"constrain": False})
        ids[f"grading, {name}, held to its form"] = grader.grading_id
        ids[f"grading, {name}"] = RubricGrader.of(free, rubric=rubric, model="j@1").grading_id
        if name in ("policy", "classes"):
            row = make(grading(grader), *unit, block_key="boats")[1]
            ids[f"vote 1, {name}"] = row.evaluation_id
    for name in ("exact_match", "gold", "infra.harbour.oracle:grade_answer"):
        config = GraderConfig(name="it", function=name)
        by_function = FunctionGrader.of(config, load_pack(SHIPPED / "harbour"))
        ids[f"grading, {name}"] = by_function.grading_id
        if name == "exact_match":
            [row] = make(grading(by_function), *unit)
            ids["vote 0, exact_match"] = row.evaluation_id
    return ids


def exchanges(folder: Path) -> dict[str, str]:
    async def harmless(request: Any) -> float:
        return 0.0

    arm = Arm(name="it", model="m@1", checkpoint_id=None, seed=None, config=AnswerConfig())
    scorer = FunctionGrader.of(GraderConfig(name="it", function="exact_match"))
    scorer = dataclasses.replace(scorer, grading_id="g")
    ids = {}
    for name, script in (("model", None), ("script", "infra/harbour/attacker.toml")):
        config = MultiturnConfig(suite="suite", grader="it", script=script, turns=2, branches=2)
        attack = MultiturnAttack(
            config=config,
            scorer=scorer,
            suite_version="v",
            judge="org/model@1",
            template=load_template("attacker", "harbour"),
            **RUN,
        )
        ids[f"attacking, {name}"] = attack.attacking_id(arm)
    work = Multiturn(
        config=config,
        attacker=ScriptedAttacker((("{{request}}", "Please."), ("Hello.", "Well?"))),
        scorer=harmless,
        attacking_id="a",
        arm=arm,
        suite_version="v",
        **RUN,
    )
    tree = make(work, rows.case("c"), prompt_id="p", messages=ASKED, attempt=0)
    return {**ids, **{f"turn {row.turn}, {row.message}": row.exchange_id for row in tree}}


def drafts(folder: Path) -> dict[str, str]:
    ids = {}
    own, hard = (
        angles(PACK, "boats", FERRY)[0],
        hard_angle("boats", FERRY, near_id="p", near="May I row?", ideal_response=Outcome.REFUSE),
    )
    for name, angle in (("angle", own), ("hard angle", hard)):
        place = Place(angle=angle, rule=FERRY, spec=SPECS["s"])
        ids[name] = place.id
    for name, function in (("model", None), ("function", "infra.harbour.prompts:draft")):
        work = Drafting(
            config=FillConfig(function=function),
            pack=PACK,
            places={"a": place},
            model="org/model@1",
            template=Template("fill", "=== user ===\n{{rule}}"),
            **RUN,
        )
        ids[f"drafting, {name}"] = work.drafting_id
        if function is None:
            ids["sample 1"] = make(work, angle_id="a")[1].draft_id
    return ids


def documents(folder: Path) -> dict[str, str]:
    ids = {}
    for name, function in (("model", None), ("function", "infra.harbour.documents:document")):
        work = Documenting(
            config=DocumentsConfig(function=function),
            pack=PACK,
            model="org/model@1",
            template=Template("document", "=== user ===\n{{spec}}"),
            **RUN,
        )
        ids[f"documenting, {name}"] = work.documenting_id
        if function is None:
            for subject_id, subject in work.subjects.items():
                ids[f"{subject.kind}, {subject.rule_id or subject.policy.id}"] = subject_id
            ids["sample 1"] = make(work, subject_id=subject_id)[1].document_id
    return ids


def models(folder: Path) -> dict[str, str]:
    configs: dict[str, dict[str, Any]] = {
        "hub": {"max_num_seqs": 9},
        "hub, shaped": {"revision": "1", "dtype": "float16", "reasons": False},
        "hub, template": {"chat_template_kwargs": {"enable_thinking": True}},
        "hub, arguments": {"engine_args": {"seed": 1}},
        "hub, parser": {"reasoning_parser": "qwen3"},
        "scale model": {"model": "infra/harbour/model"},
    }
    return {
        name: EngineConfig(**{"model": "org/model", **options}).version
        for name, options in configs.items()
    }


def shards(folder: Path) -> dict[str, str]:
    content: dict[str, list[Any]] = {
        "prompts": [rows.prompt("a", version="v"), rows.prompt("b", revision=1)],
        "completions": [rows.completion("c"), rows.completion("d", attempt=1)],
        "examples": [rows.example("c"), rows.example("d")],
        "runs": [rows.run("r")],
    }
    return {
        name: shard_name(TABLES[name], to_arrow(TABLES[name], content[name])) for name in content
    }


_DATA = (
    *(prompts, specs_, templates, completions, judgements, reviews, examples, checkpoints),
    *(rollouts, findings),
)
_EVALUATION = (cases, answers, evaluations, exchanges, drafts, documents)
MAKERS = {maker.__name__.rstrip("_"): maker for maker in (*_DATA, *_EVALUATION, models, shards)}


@pytest.mark.parametrize("table", MAKERS)
def test_ids_of_every_table_stay(table: str, tmp_path: Path) -> None:
    ids = {f"{table}/{name}": value for name, value in MAKERS[table](tmp_path).items()}
    changed = [
        f'    "{name}": {value!r},' for name, value in ids.items() if EXPECTED.get(name) != value
    ]
    assert not changed, "\n".join(["the ids of these have changed, to:", *changed])
    assert ids.keys() == {name for name in EXPECTED if name.startswith(f"{table}/")}


def test_every_table_but_runs_has_frozen_ids() -> None:
    assert TABLES.keys() - {"runs"} <= MAKERS.keys()
