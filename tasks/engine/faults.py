"""An exception → its innermost cause in one line, for rows and messages."""

from pydantic import ValidationError


def cause_of(error: BaseException) -> str:
    """Returns what the innermost cause of an exception says, in one line.

    The kind of exception is named where it says nothing, or no more than a name.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ValidationError):
        # Its own text ends on an address, and says the type of the input at length.
        faults = [str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors()]
        return "; ".join(_first_line(fault) for fault in faults)
    line = _first_line(str(error))
    return line if " " in line else f"{type(error).__name__}: {line}".removesuffix(": ")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
