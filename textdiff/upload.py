"""Uploading of trained models to the Hugging Face hub, and the hub's errors in one line.

This module imports no model and no torch.
"""

import logging
import re
from pathlib import Path

from textdiff.config import UserError

log = logging.getLogger("textdiff")


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str = "Upload a model of textdiff",
) -> str:
    """Uploads the files of a model/ folder in one commit, into a repository that may be new.

    Args:
        repo_id: Name on the hub, such as user/model.
        private: Whether a new repository is private.
        token: Access token of the hub. If None, that of `hf auth login` or HF_TOKEN.
        message: Message of the commit.

    Returns:
        Address of the model on the hub.

    Raises:
        UserError: If the hub refuses it or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    check_repo_id(repo_id)
    if not (folder / "README.md").exists():
        log.warning("%s gets no model card, for the model has no README.md", repo_id)
    api = HfApi(token=token)
    files = [file for file in sorted(folder.glob("[!.]*")) if file.is_file()]
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        named = [CommitOperationAdd(file.name, _content(file, url.repo_id)) for file in files]
        api.create_commit(url.repo_id, named, commit_message=message)
    except Exception as error:  # of the hub, of httpx and of the disk
        raise hub_error(repo_id, error) from error
    return str(url)


def _content(file: Path, repo_id: str) -> bytes | Path:
    """What is uploaded of a file: itself, or the card with the name of the model on the hub."""
    if file.name != "README.md":
        return file
    name = f'from_pretrained("{repo_id}")'
    return re.sub(r'from_pretrained\("[^"]*"\)', name, file.read_text(encoding="utf-8")).encode()


def check_repo_id(repo_id: str) -> None:
    """Raises UserError if a name cannot be one on the hub. It needs no network."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise hub_error(repo_id, error) from error


def hub_error(name: str, error: Exception) -> UserError:
    """The error of a user for an exception of the hub: what failed, and the way out.

    Args:
        name: Name of the model on the hub.
    """
    from huggingface_hub import constants, errors

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # of one of several uploads
    status = getattr(getattr(error, "response", None), "status_code", None)
    log_in = "log in with `hf auth login`, or set HF_TOKEN to a valid token"
    if isinstance(error, errors.HFValidationError):
        return UserError(f"{name} is no name on the hub: give one such as user/model")
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{name} has no such revision: give a branch, tag or commit of it")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(f"{name} is not on the hub, or is private: check the name, or {log_in}")
    if status == 401:
        return UserError(f"{name}: the hub does not accept the token: {log_in}")
    if status == 403:
        return UserError(f"{name}: the token has no right to do this: use one with write access")
    if status is None and constants.HF_HUB_OFFLINE:
        return UserError(f"{name} needs the hub, but HF_HUB_OFFLINE is set: unset it")
    reason = " ".join(str(error).split())[:200]
    offline = type(error).__module__.startswith("httpx")
    if offline or isinstance(error, errors.LocalEntryNotFoundError):
        host = constants.ENDPOINT
        return UserError(f"{name}: cannot reach {host} ({reason}): check the network, or try later")
    return UserError(f"{name}: {reason}")
