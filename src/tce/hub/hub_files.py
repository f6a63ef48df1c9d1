"""Files on the Hugging Face Hub: `hf://owner/name` is one of our checkpoints there.

Nothing here runs unless a user wrote the address: no checkpoint, index or list makes it be called. The Hub is
the library's own, or HF_ENDPOINT; so are its cache and the user's login.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tce.errors import TceError, printable

HUB = "hf://"
WANTED = ("model.safetensors", "config.json")  # all that is fetched: data, never code
ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def is_hub_address(path: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint is named as `hf://...`."""
    return isinstance(path, str) and path.startswith(HUB)


def parse_address(address: str) -> tuple[str, str | None]:
    """The repository's name and the revision of `hf://owner/name` or `hf://owner/name@revision`.

    Raises:
        TceError: another form.
    """
    match = ADDRESS.fullmatch(address)
    if match is None or ".." in address:
        raise TceError(
            address,
            expected="hf://owner/name, or hf://owner/name@revision",
            found="another form",
            fix="for a Hugging Face transformers model write hf:owner/name",
        )
    return match[1], match[2]


def fetch_checkpoint(address: str) -> Path:
    """The folder of the local cache that holds a checkpoint of ours, downloaded if it is not there.

    Only `model.safetensors` and `config.json` are fetched; with HF_HUB_OFFLINE set, the cache alone serves.

    Args:
        address: what the user wrote.

    Raises:
        TceError: no such repository, no network, none of our files in it, or no huggingface_hub installed.
    """
    name, revision = parse_address(address)
    hub = _library(address)
    try:
        folder = hub.snapshot_download(
            name, revision=revision, allow_patterns=list(WANTED), endpoint=_endpoint()
        )
    except Exception as error:  # not found, no network, no permission: the library's own words say which
        raise TceError(
            address,
            expected="a checkpoint of tce on the Hugging Face Hub",
            found=_reason(error),
            fix="check the name and your network; `hf auth login` opens private ones",
        ) from error
    found = Path(folder)
    if not (found / WANTED[0]).is_file():
        raise TceError(
            address,
            expected=f"{WANTED[0]} in it, as tce publish writes it",
            found="a repository without",
            fix=f"for a Hugging Face transformers model write hf:{name}",
        )
    return found


def upload_folder(address: str, folder: Path, private: bool, message: str) -> str:
    """Upload a folder's files as one commit; the repository is made if there is none.

    Args:
        address: what the user wrote, without a revision.
        folder: its files.
        private: a new repository is private.
        message: of the commit.

    Returns:
        The repository's name.

    Raises:
        TceError: not logged in, no permission, no network, or huggingface_hub is not installed.
    """
    name, revision = parse_address(address)
    if revision is not None:
        raise TceError(address, expected="hf://owner/name to publish to", found=f"a revision, {revision}")
    hub = _library(address)
    try:
        api = hub.HfApi(endpoint=_endpoint(), library_name="tce")
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
    except Exception as error:
        raise TceError(
            address,
            expected="a repository that you may write to",
            found=_reason(error),
            fix="log in with `hf auth login`, or publish to a folder with --to FOLDER",
        ) from error
    return name


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Only the local cache is looked at inside the block, whatever is named there."""
    try:
        from huggingface_hub import constants
    except ImportError:  # then nothing can be fetched
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _library(address: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise TceError(
            address,
            expected="the huggingface_hub library",
            found="it is not installed",
            fix="pip install 'tce-video[hf]'",
        ) from error
    return huggingface_hub


def _endpoint() -> str | None:
    """HF_ENDPOINT as it is now: the library reads it once, when it is imported."""
    return os.environ.get("HF_ENDPOINT") or None


def _reason(error: Exception) -> str:
    """The first line of the library's words, without a token that may stand in an address."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return printable(re.sub(r"hf_\w{8,}", "hf_...", line))[:300]
