"""Tokenizers that enter a comparison: those of pipelines, and any other by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuromill.records import ConfigError
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import training_recordings
from neuromill.stages.identities import fit_identity
from neuromill.tokenizers.fixed_config import MuLawConfig, QuantileConfig
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.selection import Selection
    from neuromill.stages.workspace import Workspace
    from neuromill.tokenizers.fixed_config import FixedTokenizerConfig
    from neuromill.tokenizers.protocol import Tokenizer

FIXED: dict[str, type[MuLawConfig | QuantileConfig]] = {"mu_law": MuLawConfig, "quantile": QuantileConfig}


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """A tokenizer with a name for the table.

    Attributes
    ----------
    source
        Folder or hub id; "" for a rule.
    fitted_on
        Recordings it was fitted on, where it says so.
    """

    name: str
    tokenizer: Tokenizer
    source: str = ""
    fitted_on: frozenset[str] = frozenset()


def find_contenders(
    workspace: Workspace, pipelines: Sequence[Pipeline], selection: Selection, others: Sequence[str], sfreq: float
) -> tuple[Contender, ...]:
    """Open the tokenizer of each pipeline, then the others.

    Parameters
    ----------
    workspace, pipelines, selection
        Where fitted tokenizers are, and what names them.
    others
        ``mu_law`` or ``quantile``; a folder, a hub id, or the first digits of a fitted one in the home folder.
    sfreq
        Hz; the rate at which ``mu_law`` and ``quantile`` work.

    Raises
    ------
    ConfigError
        A pipeline has no fitted tokenizer, or one of spikes; a tokenizer cannot be found.
    """
    found = [_of_pipeline(workspace, pipeline, selection) for pipeline in pipelines]
    found += [_by_name(workspace, name, sfreq) for name in others]
    return tuple(_with_own_names(found))


def _of_pipeline(workspace: Workspace, pipeline: Pipeline, selection: Selection) -> Contender:
    rule = pipeline.tokenizer
    if isinstance(rule, Ndt3TokenizerConfig):
        raise ConfigError(
            "tokens of spikes are no codes of a signal", where=pipeline.name, next_step="compare tokenizers of signals"
        )
    if pipeline.pretrained is not None:
        source, revision = pipeline.pretrained.source, pipeline.pretrained.revision
        return _opened(f"{pipeline.name} (published)", source, revision)
    if isinstance(rule, MuLawConfig | QuantileConfig):
        return _fixed(f"{pipeline.name} ({rule.kind})", rule)
    return _opened(f"{pipeline.name} ({rule.kind})", _fitted_folder(workspace, pipeline, selection))


def _fitted_folder(workspace: Workspace, pipeline: Pipeline, selection: Selection) -> str:
    """Folder of the tokenizer fitted on what is selected, or on all of it: a comparison may be about a part."""
    for one in dict.fromkeys((selection, selection.model_copy(update={"where": "", "part": None}))):
        training = training_recordings(workspace, pipeline, choose(workspace, pipeline, one))
        folder = workspace.tokenizer_folder(fit_identity(pipeline, training))
        if folder.is_dir():
            return str(folder)
    raise ConfigError(
        "no tokenizer is fitted for these recordings and settings",
        where=pipeline.name,
        next_step=f"run `neuromill tokenizer fit {pipeline.name}` first, or name another with --with FOLDER",
    )


def _by_name(workspace: Workspace, name: str, sfreq: float) -> Contender:
    if name in FIXED:
        return _fixed(name, FIXED[name](sfreq=sfreq))
    fitted = [folder for folder in sorted((workspace.home / "tokenizers").glob("*")) if folder.name.startswith(name)]
    if name and len(fitted) == 1:
        return _opened(fitted[0].name[:8], str(fitted[0]))
    return _opened(name, name)


def _fixed(name: str, config: FixedTokenizerConfig) -> Contender:
    from neuromill.tokenizers.fixed import FixedTokenizer

    return Contender(name, FixedTokenizer(config))


def _opened(name: str, source: str, revision: str = "") -> Contender:
    from neuromill.tokenizers.files import open_tokenizer, read_facts

    tokenizer = open_tokenizer(source, revision=revision or None)
    facts = read_facts(source, revision=revision or None)
    return Contender(name, tokenizer, source, frozenset(map(str, facts.get("recordings", ()))))


def _with_own_names(found: Sequence[Contender]) -> list[Contender]:
    """Number those that share a name."""
    named: list[Contender] = []
    for one in found:
        same = sum(other.name == one.name or other.name.startswith(f"{one.name} #") for other in named)
        name = f"{one.name} #{same + 1}" if same else one.name
        named.append(Contender(name, one.tokenizer, one.source, one.fitted_on))
    return named
