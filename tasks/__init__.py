"""Work: one module per arrow of the factory, its configuration on top and its verb below."""

import os

from pydantic import BaseModel, ConfigDict

# A cluster that is only for one run is reached from this machine alone: without this, which Ray
# reads when it is imported, it listens on every address.
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


class Config(BaseModel):
    """Base of every configuration: frozen, and a key that nobody knows is refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
