"""The filters of the page, which narrow everything that it shows."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Conditions that a completion meets all of; unset ones leave every completion."""

    run: str | None = None
    """Id of the run that made it."""
    categories: tuple[str, ...] = ()
    """Policy categories of its prompt, joined by `+`; any of them."""
    ideal_responses: tuple[str, ...] = ()
    """`comply`, `refuse`, `safe_complete` or `unknown`; any of them."""
    verdicts: tuple[str, ...] = ()
    """`accepted`, `rejected`, `unjudged`, `held` or `failed`; any of them."""
    languages: tuple[str, ...] = ()
    """Languages of its prompt; any of them."""
    sources: tuple[str, ...] = ()
    """Sources of its prompt; any of them."""
    rule: str | None = None
    """Id of a rule that its reasoning cites."""
    lowest: float = 0.0
    """Least lowest score, from 0 to 10. At 0 to 10, completions without a score stay."""
    highest: float = 10.0
    """Greatest lowest score, from 0 to 10."""
    text: str = ""
    """Text that its prompt, reasoning or answer contains, in any case; empty: any."""

    def parameters(self) -> dict[str, Any]:
        """Returns the conditions as parameters of a query, with lists in place of tuples."""
        values = asdict(self).items()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}
