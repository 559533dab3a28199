"""Work: one module per arrow of the factory, its configuration on top and its verb below."""

import os
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

# A cluster that is only for one run is reached from this machine alone: without this, which Ray
# reads when it is imported, it listens on every address.
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


class Config(BaseModel):
    """Base of every configuration: frozen, and an unknown key is refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @property
    def identity(self) -> str:
        """The settings as they are hashed into ids, as JSON.

        Every key counts: a renamed field keeps its old name here by `serialization_alias`, and a
        new one changes the ids of all rows that hash this configuration.
        """
        return self.model_dump_json(by_alias=True)


def require_own_names(kind: str, names: Sequence[str]) -> None:
    """Raises ValueError if two of a list, such as `sources`, bear one name."""
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"two {kind} are named {repeated!r}: give each its own name")
