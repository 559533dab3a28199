"""What a pack needs and a classifier's prompt or a taxonomy does not say: how to answer."""

from collections.abc import Iterable, Mapping

from specs.importers.markdown import style_file
from specs.policy import Outcome, Pack

_PRINCIPLES = (
    "Help as far as the rules allow. A request that no rule restricts gets a full answer. Where "
    "two rules cover a request, the more specific one decides."
)
_STYLE: Mapping[Outcome, str] = {
    Outcome.COMPLY: "Give what was asked for, fully and directly, without a lecture.",
    Outcome.REFUSE: "Apologise in one sentence and say that you cannot help with this. Give no "
    "part of what was refused.",
    Outcome.SAFE_COMPLETE: "Give the part that is safe, leave out the rest, and say who can "
    "help further.",
}
TO_FINISH = "style.md holds principles and guidelines of Precept; write your own"


def default_style(pack_id: str, title: str, outcomes: Iterable[Outcome]) -> str:
    """Returns a style.md with guidelines for those outcomes."""
    present = set(outcomes)
    return style_file(
        Pack(
            id=pack_id,
            title=title,
            version="1",
            principles=_PRINCIPLES,
            style={outcome: text for outcome, text in _STYLE.items() if outcome in present},
            policies={},
        )
    )
