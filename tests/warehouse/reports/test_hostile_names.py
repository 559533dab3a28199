"""Names of arms, suites, recipes and graders never change the structure of a report."""

import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from markdown_it import MarkdownIt

from tests.hostile import hostile_texts, is_plain
from tests.warehouse.reports.test_report import MEASURED, invented, sample
from warehouse.characters import one_line
from warehouse.reports import plots
from warehouse.reports.report import Report, as_html, as_json, as_markdown, write

NAMES = ("base", "SFT+RL", "harbour", "judge", "oracle", "rot_13", "Evaluation of harbour", "c1")
TEXTS = hostile_texts(300, surrogates=True)


def renamed(name: str) -> Report:
    """A report in which a text stands in place of every name."""
    fresh = {old: f"{name}{number}" for number, old in enumerate(NAMES)}
    fresh["base, 16 tokens"] = f"{fresh['base']}, 16 tokens"

    def turned(value: Any) -> Any:
        if isinstance(value, str):
            return fresh.get(value, value)
        if isinstance(value, Mapping):
            return {key: turned(one) for key, one in value.items()}
        return [turned(one) for one in value] if isinstance(value, list) else value

    report = invented(samples=[sample(), sample(kind="harmful", attack="rot_13")])
    return Report(**{part: turned(getattr(report, part)) for part in report.__dataclass_fields__})


class Tags(HTMLParser):
    """The elements of a page in their order, without those inside its figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self._in_figure = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._in_figure:
            self.tags.append(tag)
        self._in_figure |= tag == "svg"

    def handle_endtag(self, tag: str) -> None:
        self._in_figure &= tag != "svg"


def blocks(markdown: str) -> list[tuple[str, str]]:
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    return [(token.type, token.tag) for token in tokens]


def test_markdown_has_the_same_blocks_whatever_the_names() -> None:
    plain = blocks(as_markdown(renamed("plain")))
    assert ("heading_open", "h3") in plain and ("table_open", "table") in plain
    for text in TEXTS[::3]:
        written = as_markdown(renamed(text))
        assert blocks(written) == plain and is_plain(written), text


def test_page_has_the_same_elements_whatever_the_names() -> None:
    plain = Tags(as_html(renamed("plain"))).tags
    for part in range(4):
        page = as_html(renamed("".join(TEXTS[part::40])))
        assert Tags(page).tags == plain and is_plain(page), part


def test_figures_are_xml_whatever_the_names() -> None:
    for start in range(0, len(TEXTS), 60):
        texts = TEXTS[start : start + 60]
        rows = [{"arm": text, "grader": texts[0], **MEASURED} for text in texts]
        svg = plots.arms_plot(rows, title=texts[0])
        root = ElementTree.fromstring(svg)
        assert root[0].text == one_line(texts[0]) and is_plain(svg)


def test_names_that_matplotlib_would_hide_stand_in_the_legend() -> None:
    for name in ("_x", "_", "漢字"):
        svg = plots.arms_plot([{"arm": "a", "grader": name, **MEASURED}], title="t")
        texts = [text.text for text in ElementTree.fromstring(svg).iter() if text.text]
        assert name in texts


def test_json_holds_names_exactly(tmp_path: Path) -> None:
    report = renamed("".join(TEXTS))
    assert is_plain(as_json(report))
    [_, _, path] = write(renamed("a\x1b\ud800"), tmp_path)
    assert json.loads(path.read_text())["suites"][0]["suite"] == "a\x1b\ud8002"
