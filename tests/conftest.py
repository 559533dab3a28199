"""Settings that all tests share."""

from hypothesis import settings

# A busy machine is no fault of the code, and the same code gives the same result.
settings.register_profile("precept", deadline=None, derandomize=True, database=None)
settings.load_profile("precept")
