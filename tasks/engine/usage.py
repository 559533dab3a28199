"""Tokens, seconds and costs of engines."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens and seconds of engines since they started."""

    prompt_tokens: int = 0
    """Prompt tokens; each sample counts its prompt."""
    cached_tokens: int = 0
    """Prompt tokens that the prefix cache served."""
    output_tokens: int = 0
    steps: int = 0
    running: int = 0
    """Sequences in progress now."""
    seconds_to_start: float = 0.0
    """Longest time that a model took to load."""
    requests: int = 0
    """Requests sent to an endpoint, with those that were sent again."""
    unmetered: int = 0
    """Replies of an endpoint that did not tell their tokens."""
    cost: float = 0.0
    """Cost of the tokens, at the endpoint's prices."""
    notes: tuple[str, ...] = ()
    """Requests that an endpoint could not serve as they were made, each once."""

    @property
    def cache_hit_rate(self) -> float:
        """Share of the prompt tokens that the prefix cache served."""
        return self.cached_tokens / max(1, self.prompt_tokens)

    def __add__(self, other: "Usage") -> "Usage":
        """Returns the usage of two engines, or of one engine at two times, together."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            steps=self.steps + other.steps,
            running=self.running + other.running,
            seconds_to_start=max(self.seconds_to_start, other.seconds_to_start),
            requests=self.requests + other.requests,
            unmetered=self.unmetered + other.unmetered,
            cost=self.cost + other.cost,
            notes=tuple(dict.fromkeys([*self.notes, *other.notes])),
        )

    def since(self, before: "Usage") -> "Usage":
        """Returns the usage after `before` was read; all of it if the engine restarted since."""
        if self.steps < before.steps:
            return self
        return replace(
            self,
            prompt_tokens=self.prompt_tokens - before.prompt_tokens,
            cached_tokens=self.cached_tokens - before.cached_tokens,
            output_tokens=self.output_tokens - before.output_tokens,
            steps=self.steps - before.steps,
            requests=self.requests - before.requests,
            unmetered=self.unmetered - before.unmetered,
            cost=self.cost - before.cost,
        )
