"""Cards: the README.md of an export, made from a template and from the figures of named queries."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from warehouse.characters import all_visible, one_line
from warehouse.exports.dataset import CONFIGS, ExportedRows, ExportError, Form, Reasoning
from warehouse.exports.figures import Figures
from warehouse.lineage import STAGE_TITLES
from warehouse.markdown import templates, without_signs

_ABOUT = {
    "sft": "an example whose completion people, or else the judge, accept",
    "rl_prompts": "a prompt, with the share of its completions that was accepted",
    "preference": "a prompt with its best accepted and its worst rejected completion",
    "rejected": "a completion with a score under the threshold that people do not accept, with "
    "the judge's words on it",
    "traces": "a completion in form, whatever its verdict",
}
_PLACES: Mapping[Reasoning, str] = {
    "field": "in field `reasoning_content` of the assistant's turn",
    "tags": "between `<think>` tags before the answer",
    "thinking": "in field `thinking` of the assistant's turn",
}
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
"""The Hub's names for the powers of ten from a thousand."""


def check_license(name: str | None) -> str | None:
    """Returns the identifier of a licence in small letters; raises ExportError if it is none."""
    if name is None:
        return None
    if not _LICENSE.fullmatch(name.lower()):
        raise ExportError(
            f"the licence is {name!r}; give the identifier of a licence, such as apache-2.0"
        )
    return name.lower()


def check_languages(names: Sequence[str]) -> list[str]:
    """Returns codes of languages; raises ExportError if one is none."""
    for name in names:
        if not _LANGUAGE.fullmatch(name):
            raise ExportError(
                f"--language is {name!r}; give the code of a language, such as en or pt-BR"
            )
    return list(names)


def dataset_card(
    figures: Figures,
    exported: ExportedRows,
    *,
    form: Form,
    reasoning: Reasoning,
    given: Mapping[str, Any],
) -> str:
    """Returns the card of a data set.

    `given` has what no query knows: title, folder, license, languages, command and the names of the
    recipes' files.
    """
    names = [config.name for config in exported.configs]
    measured = [row["language"] or "" for row in figures.rows["languages"]]
    languages = given["languages"] or [one for one in measured if _LANGUAGE.fullmatch(one)]
    total = sum(row["num_rows"] for row in figures.rows["configs"])
    data = {
        **_shared(given),
        "language": languages,
        "size_categories": [_size(total)],
        "task_categories": ["text-generation"],
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": "train", "path": f"{name}/train-*.parquet"}],
            }
            for name in names
        ],
    }
    return _page(
        "dataset.md",
        data,
        {
            "rows": figures.rows,
            "names": names,
            "configs": exported.configs,
            "without_rows": exported.without_rows,
            "about": {name: _ABOUT[name] for name in CONFIGS},
            "form": form,
            "reasoning_place": Markup(_PLACES[reasoning]),
            **given,
        },
    )


def checkpoint_card(figures: Figures, *, given: Mapping[str, Any]) -> str:
    """Returns the card of a checkpoint.

    `given` has what no query knows: title, license, languages, command, the name of the recipe's
    file, the id of the model on the Hub that it began from, and how it is served.
    """
    lineage = figures.rows["lineage"]
    if not lineage:
        raise ExportError("the warehouse has no training of this checkpoint")
    data = {
        **_shared(given),
        "language": list(given["languages"]),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": given["base_model"],
    }
    stages = [STAGE_TITLES[row["stage"]] for row in lineage]
    is_whole = lineage[0]["parent_id"] is None
    facts = {
        "rows": figures.rows,
        "stages": ", then ".join(stages if is_whole else ["trainings that are not known", *stages]),
        "root": lineage[0]["parent"] if is_whole else None,
        **given,
    }
    return _page("checkpoint.md", data, facts)


def _shared(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "license": given["license"],
        "pretty_name": given["title"],
        "tags": ["precept", "deliberative-alignment", "reasoning"],
    }


def _page(template: str, data: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Returns a page with its metadata, whose keys without a value are left out."""
    import yaml

    kept = {name: value for name, value in data.items() if value}
    metadata = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=1000)
    text = _templates().get_template(template).render(**_shown(facts))
    # Empty lines that a loop or a condition leaves behind are one.
    return f"---\n{metadata}---\n\n" + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _shown(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts with every text of them made visible, markup apart."""
    return {
        name: value if isinstance(value, Markup) else all_visible(value)
        for name, value in facts.items()
    }


@cache
def _templates() -> Environment:
    environment = templates(Path(__file__).parent, autoescape=False)
    environment.filters |= {
        "line": _as_line,
        "heading": lambda text: _as_line(text).replace("#", r"\#"),
        "code": one_line,
        "number": _number,
        "settings": _settings,
        "python": lambda text: json.dumps(text, ensure_ascii=False),
        "time": lambda time: (
            f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            if isinstance(time, datetime)
            else str(time)
        ),
    }
    return environment


def _as_line(text: Any) -> str:
    """Returns a text as one line of Markdown, in which nothing of it is markup."""
    escaped = html.escape(one_line(" ".join(str(text).split())), quote=False)
    return without_signs(escaped)


def _number(value: float | None) -> str:
    """Returns a number with thousands apart and without idle zeros; `–` for none."""
    if value is None:
        return "–"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    if abs(value) < 0.00005:
        return f"{value:.2g}"
    return f"{value:,.4f}".rstrip("0").rstrip(".")


def _settings(text: str | None) -> str:
    """Returns settings in JSON as words, without those that are not set."""
    if text is None:
        return "not recorded"
    value = json.loads(text)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    set_ones = {name: one for name, one in value.items() if one not in (None, [], {})}
    return ", ".join(f"{name} {json.dumps(one)}" for name, one in set_ones.items()) or "none"


def _size(num_rows: int) -> str:
    """Returns the Hub's name for a number of rows."""
    for place, name in enumerate(_SIZES):
        if num_rows < 10 ** (place + 3):
            return f"{_SIZES[place - 1]}<n<{name}" if place else f"n<{name}"
    return f"n>{_SIZES[-1]}"
