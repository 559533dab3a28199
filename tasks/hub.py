"""Pushes to the Hugging Face Hub: only when told, private unless told, nothing replaced unasked.

The token is the library's business: it is read from `$HF_TOKEN` or from the login of `hf`, and no
message, log or file of ours holds it.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

RepoType = Literal["dataset", "model"]


class PushError(ValueError):
    """A push that cannot be done, with its cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """A folder that was pushed."""

    url: str
    is_public: bool


def push(
    folder: str | Path, repo: str, *, repo_type: RepoType, public: bool = False, replace: bool
) -> Pushed:
    """Pushes the files of a folder as one commit to a repository of the Hub, which it makes.

    Files whose names begin with a dot stay here. Those of a repository that is there are replaced
    only if `replace` is set; its history stays. Raises PushError in one sentence if there is no
    token, no network or no right, or if the name is taken.
    """
    _silence()
    with _told(repo):
        from huggingface_hub import HfApi
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        validate_repo_id(repo)
        if repo.count("/") != 1:
            raise PushError(f"{repo!r} is no name of a repository; give it as OWNER/NAME")
        api = HfApi(library_name="precept")
        _require_token(api)
        there = _existing(api, repo, repo_type)
        if there is None:
            api.create_repo(repo, repo_type=repo_type, private=not public)
        else:
            _require_leave(there, repo, public=public, replace=replace)
        api.upload_folder(
            repo_id=repo,
            repo_type=repo_type,
            folder_path=folder,
            commit_message="Export of Precept",
            # Files that another has pushed since are not replaced unseen.
            parent_commit=there.sha if there is not None else None,
            # A file of an earlier export would be read as a part of this one.
            delete_patterns=["*"] if there is not None else None,
            ignore_patterns=[".*", "*/.*"],
        )
        prefix = "datasets/" if repo_type == "dataset" else ""
        is_public = public if there is None else not there.private
        return Pushed(f"{api.endpoint}/{prefix}{repo}", is_public)


def _silence() -> None:
    """Keeps the library from sending statistics; it reads this when it is imported."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def _require_token(api: Any) -> None:
    """Raises PushError without a token, or if the Hub does not know it."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    token = get_token()
    if token is None:
        raise PushError(
            "there is no token for the Hugging Face Hub; set HF_TOKEN to one that may write, or do "
            "hf auth login"
        )
    if not re.fullmatch(r"[!-~]+", token):
        # The library would put it into a header, and quote it where that fails.
        raise PushError(
            "the token of HF_TOKEN or hf auth login has characters that no token has; give one "
            "that is valid and may write"
        )
    try:
        api.whoami()
    except HfHubHTTPError as error:
        if _status(error) != 401:
            raise
        raise PushError(
            "the Hugging Face Hub does not know the token of HF_TOKEN or hf auth login; give one "
            "that is valid and may write"
        ) from None


def _existing(api: Any, repo: str, repo_type: RepoType) -> Any:
    """Returns what the Hub tells of a repository, or None if there is none that the token sees."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.repo_info(repo, repo_type=repo_type)
    except RepositoryNotFoundError:
        return None


def _require_leave(there: Any, repo: str, *, public: bool, replace: bool) -> None:
    """Raises PushError if a repository must stay, or would show what is to be private.

    One without files, as a push that broke off leaves behind, has nothing to lose.
    """
    seen = "private" if there.private else "public"
    # The Hub itself puts this file into every repository.
    files = {file.rfilename for file in there.siblings or ()} - {".gitattributes"}
    num_files = len(files)
    changed = f", last changed on {there.last_modified:%Y-%m-%d}" if there.last_modified else ""
    what = f"{repo} is there already: {seen}, {num_files} files{changed}"
    if files and not replace:
        raise PushError(f"{what}; give another name, or --force to replace its files")
    if seen == "public" and not public:
        raise PushError(
            f"{what}; everybody would see the export, so give --public as well, or another name"
        )


@contextmanager
def _told(repo: str) -> Iterator[None]:
    """Turns a fault of the Hub or of the way to it into a PushError.

    The library's own errors are not passed on: they quote addresses, which may be signed, or have
    several lines.
    """
    import httpx
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except PushError:
        raise
    except HFValidationError:
        raise PushError(f"{repo!r} is no name of a repository; give it as OWNER/NAME") from None
    except OfflineModeIsEnabled:
        raise PushError(
            "HF_HUB_OFFLINE is set, so that nothing can be pushed; unset it for this command"
        ) from None
    except HfHubHTTPError as error:
        raise PushError(_words(error, repo)) from None
    except (httpx.HTTPError, ConnectionError, TimeoutError) as error:
        raise PushError(
            f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}); check the network "
            "and HF_ENDPOINT, and run the same command again"
        ) from None
    except ValueError as error:
        said = "; ".join(line.strip("- ") for line in str(error).splitlines() if line.strip("- "))
        raise PushError(
            f"the Hugging Face Hub does not take the export ({said[:400]}); export it again with "
            "another --license, --language or --title"
        ) from None
    except RuntimeError as error:
        raise PushError(
            f"the upload to {repo} broke off ({type(error.__cause__ or error).__name__}); run the "
            "same command again"
        ) from None


def _status(error: Any) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def _words(error: Any, repo: str) -> str:
    """Returns in one sentence what the Hub refused, and what to do."""
    status = _status(error)
    reason = str(getattr(error, "server_message", None) or "").splitlines()
    said = f": {reason[0][:200]}" if reason else ""
    owner = repo.split("/")[0]
    if status == 401:
        return (
            f"the Hugging Face Hub does not accept the token for {repo}; give HF_TOKEN one that is "
            "valid and may write"
        )
    if status == 403:
        return (
            f"the token must not write to {repo} (403{said}); give one that may write to "
            f"{owner}, or another name"
        )
    if status in (409, 412):
        return (
            f"{repo} is taken or was changed meanwhile ({status}{said}); run the same command again"
        )
    if status == 429:
        return f"the Hugging Face Hub asks for patience (429{said}); run the same command later"
    return (
        f"the Hugging Face Hub refused {repo} ({status or 'no status'}{said}); run the same "
        "command again"
    )
