"""Save, load and share: one mixin for every model, on the Hugging Face Hub or in a folder.

How a model lies in a folder is its own affair (``config.json`` and ``model.safetensors``, written by two functions of
a module of its own); this is what they all have in common around it. Nothing here imports torch.
"""

from __future__ import annotations

import re
import tempfile
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from neuromill.hub.disk import CONFIG, WEIGHTS
from neuromill.records import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

    from neuromill.records import Config

CARD = "README.md"
REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


class Configured(Protocol):
    """What has settings."""

    @property
    def config(self) -> Config:
        """Everything but the weights."""


class HubMixin:
    """``save_pretrained``, ``from_pretrained``, ``push_to_hub``, ``get_config`` and ``from_config``.

    A class keeps its settings as ``config`` and says with ``files="package.module"`` where
    ``save_pretrained(model, folder)``, ``from_pretrained(folder, kind, **changes)`` and ``from_config(config, kind)``
    are, ``kind`` being the class that is asked for. The module is imported when it is first needed, so it may import
    the class::

        class CrissCross(HubMixin, nn.Module, files="neuromill.models.files"): ...
    """

    _files: ClassVar[str]

    def __init_subclass__(cls, *, files: str = "", **arguments: Any) -> None:
        """Note the module that writes and reads; a subclass without one keeps its parent's."""
        super().__init_subclass__(**arguments)
        if files:
            cls._files = files

    def get_config(self: Configured) -> dict[str, Any]:
        """All settings, as JSON values."""
        return self.config.model_dump(mode="json")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **changes: Any) -> Self:
        """Build one of random weights from what ``get_config`` gave; ``changes`` are settings that shall differ.

        Raises
        ------
        ConfigError
            The settings are wrong, or those of another class.
        """
        model = import_module(cls._files).from_config({**config, **changes}, cls)
        if not isinstance(model, cls):
            raise ConfigError(f"settings of a {type(model).__name__}, not of a {cls.__name__}", where="from_config")
        return model

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write settings and weights into a folder, complete or not at all; returns it."""
        import_module(self._files).save_pretrained(self, Path(folder))
        return Path(folder)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        **changes: Any,
    ) -> Self:
        """Open what ``save_pretrained`` wrote, on the CPU, in evaluation mode.

        Parameters
        ----------
        source
            A folder, or the name of a repository on the Hub (``owner/name``). A folder needs no network.
        revision
            Commit, tag or branch of the repository; give a commit to pin.
        cache_dir, token, local_files_only
            As in ``huggingface_hub``.
        changes
            Settings that shall differ, where the kind of model allows it (``n_outputs=4`` of EEGSSM).

        Raises
        ------
        ConfigError
            Nothing is there, it cannot be reached, or it is not a model of this class.
        """
        folder = folder_of(
            source, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        read = import_module(cls._files).from_pretrained
        if changes and not _takes(read, changes):
            raise ConfigError(f"{cls.__name__} is opened as it was saved: {', '.join(changes)} cannot be changed")
        model = read(folder, cls, **changes)
        if not isinstance(model, cls):
            raise ConfigError(f"a {type(model).__name__}, not a {cls.__name__}", where=str(source))
        return model

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        card: str | None = None,
    ) -> str:
        """Upload the model as one commit; makes the repository where it is missing.

        Parameters
        ----------
        repo_id
            ``owner/name``.
        private
            Of a repository that is made; an existing one stays as it is.
        token
            A write token; by default the one ``huggingface_hub`` finds.
        revision
            Branch; by default the main one.
        commit_message
            By default what class it is.
        card
            Text of the model card (``README.md``). Without it an existing card stays, and a new repository gets a
            short one that says how to load the model.

        Returns
        -------
        str
            Address of the commit.

        Raises
        ------
        ConfigError
            The name is none, or the Hub refuses.
        """
        _require_name(repo_id)
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.save_pretrained(Path(scratch) / "model")
            if card is not None:
                (folder / CARD).write_text(card, encoding="utf-8")
            message = commit_message or f"{type(self).__name__} of neuromill"
            short = short_card(type(self), repo_id) if card is None else None
            return _upload(folder, repo_id, message, private=private, token=token, revision=revision, short=short)


def _takes(read: Callable[..., Any], names: Iterable[str]) -> bool:
    """Whether a function can be called with these names."""
    parameters = signature(read).parameters
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    return takes_any or parameters.keys() >= set(names)


def short_card(kind: type, repo_id: str) -> str:
    """Model card of a model nobody described: how to load it."""
    head = "---\nlibrary_name: neuromill\ntags:\n- neuromill\n---\n\n"
    code = f"from {kind.__module__} import {kind.__name__}\n\nmodel = {kind.__name__}.from_pretrained({repo_id!r})"
    return f"{head}# {repo_id.rpartition('/')[2]}\n\n```python\n{code}\n```\n"


def folder_of(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    absent: str = "no such folder",
) -> Path:
    """Folder with the files of a model: ``source`` itself, or a snapshot of the repository it names.

    ``absent`` is what to say where ``source`` is neither.

    Raises
    ------
    ConfigError
        It is neither, or the repository cannot be reached and is not in the cache.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if isinstance(source, Path) or not REPOSITORY.fullmatch(str(source)):
        raise ConfigError(absent, where=str(source), next_step="check the path")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        path = snapshot_download(
            str(source),
            revision=revision,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            token=token,
            local_files_only=local_files_only,
            allow_patterns=[WEIGHTS, CONFIG],
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            "neither a folder nor a repository that can be reached",
            where=f"{source}@{revision or 'main'}",
            next_step="check the name and the network, or give a folder",
        ) from error
    return Path(path)


def _require_name(repo_id: str) -> None:
    if not REPOSITORY.fullmatch(repo_id):
        raise ConfigError("not the name of a repository", where=repo_id, next_step="owner/name")


def _upload(
    folder: Path,
    repo_id: str,
    message: str,
    *,
    private: bool,
    token: str | None,
    revision: str | None,
    short: str | None,
) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi(token=token, library_name="neuromill")
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if short and not api.file_exists(repo_id, CARD, revision=revision):
            (folder / CARD).write_text(short, encoding="utf-8")
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            allow_patterns=[WEIGHTS, CONFIG, CARD],
        )
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        raise ConfigError(
            f"the Hub refused: {str(error).splitlines()[0]}",
            where=repo_id,
            next_step="check the name, the network and the write token (hf auth login)",
        ) from error
    return str(commit.commit_url)
