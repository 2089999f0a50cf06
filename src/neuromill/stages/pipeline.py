"""A pipeline file: which recordings, which steps, which tokenizer, which model. The scientific half of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

import yaml
from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from neuromill.catalog.strict_yaml import parse_yaml
from neuromill.records import Config, ConfigError
from neuromill.stages.consistency import contradictions
from neuromill.stages.prepare_config import PrepareConfig, SpikePrepareConfig
from neuromill.tokenizers.config import FitConfig, GateConfig, TokenizeConfig, TokenizerConfig
from neuromill.tokenizers.fixed_config import MuLawConfig, QuantileConfig
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from neuromill.tokenizers.tfdual_config import TfDualFitConfig, TfDualTokenizerConfig
from neuromill.training.config import TrainConfig
from neuromill.training.eegssm_config import EEGSSMTrainConfig
from neuromill.training.ndt3_config import Ndt3TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class PretrainedConfig(Config):
    """A tokenizer that exists already: a folder or a hub id with its revision; then nothing is fitted."""

    source: str
    revision: str = ""


def _kind(default: str) -> Discriminator:
    """Tell the classes of a section by its ``kind``; a section that names none is of the kind it always was."""

    def kind_of(section: Any) -> str:
        return str(section.get("kind", default) if isinstance(section, dict) else getattr(section, "kind", default))

    return Discriminator(kind_of)


Prepare = Annotated[
    Annotated[PrepareConfig, Tag("signal")] | Annotated[SpikePrepareConfig, Tag("spikes")], _kind("signal")
]
AnyTokenizer = Annotated[
    Annotated[TokenizerConfig, Tag("biocodec")]
    | Annotated[TfDualTokenizerConfig, Tag("tfdual")]
    | Annotated[MuLawConfig, Tag("mu_law")]
    | Annotated[QuantileConfig, Tag("quantile")]
    | Annotated[Ndt3TokenizerConfig, Tag("ndt3")],
    _kind("biocodec"),
]
Fit = Annotated[Annotated[FitConfig, Tag("biocodec")] | Annotated[TfDualFitConfig, Tag("tfdual")], _kind("biocodec")]
Train = Annotated[
    Annotated[TrainConfig, Tag("criss_cross")]
    | Annotated[Ndt3TrainConfig, Tag("ndt3")]
    | Annotated[EEGSSMTrainConfig, Tag("eegssm")],
    _kind("criss_cross"),
]
KINDED = ("prepare", "tokenizer", "fit", "train")
FIRST_KINDS = ("signal", "biocodec", "criss_cross")  # kinds that a section had before it had several


class Pipeline(Config):
    """Everything that decides the bytes that come out. Machine things (workers, folders) are ``Settings``.

    Attributes
    ----------
    datasets
        Card ids, in the order in which their stores are joined.
    where
        SQL condition over the recording index; "" takes every recording the cards name.
    pretrained_model
        Folder of a model for ``embed``, in place of the one this pipeline trains.
    keep_raw
        False: the raw files of a recording go when its prepared group is published.
    """

    name: str
    title: str = ""
    datasets: tuple[str, ...] = ()
    where: str = ""
    prepare: Prepare
    tokenizer: AnyTokenizer = TokenizerConfig()
    pretrained: PretrainedConfig | None = None
    fit: Fit = FitConfig()
    gate: GateConfig = GateConfig()
    tokenize: TokenizeConfig = TokenizeConfig()
    train: Train = TrainConfig()
    pretrained_model: str = ""
    keep_raw: Annotated[bool, Field(description="keep fetched raw files after they are prepared")] = True

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        found = contradictions(self)
        if found:
            raise ValueError("; ".join(found))
        return self


def load_pipeline(path: Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Read a pipeline file and apply ``--set a.b=value`` overrides (values are YAML).

    Raises
    ------
    ConfigError
        The file is missing, is not YAML, has unknown keys or wrong values; the message names each place.
    """
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such pipeline file", where=str(path), next_step="check the path") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that cannot be
        raise ConfigError(f"not a YAML file: {_one_line(error)}", where=str(path), next_step=_PAGE) from None
    if not isinstance(document, dict):
        raise ConfigError("a pipeline file is a YAML mapping", where=str(path), next_step=_PAGE)
    for override in overrides:
        _apply_override(document, override)
    try:
        return Pipeline.model_validate(document)
    except ValidationError as error:
        raise ConfigError(describe(error), where=str(path), next_step=_PAGE) from None


def describe(error: ValidationError) -> str:
    """Name every wrong place of a configuration on one line: ``a.b: what is wrong; c: ...``."""
    return "; ".join(
        f"{_place(problem['loc']) or 'file'}: {_told(problem['type'], problem['msg'])}"
        if problem["type"] != "union_tag_invalid"
        else f"{_place(problem['loc'])}.kind: {problem['ctx']['tag']!r} is none of {problem['ctx']['expected_tags']}"
        for problem in error.errors()
    )


def _place(loc: tuple[str | int, ...]) -> str:
    """Join keys as a pipeline file has them: pydantic adds the kind of a section, which is no level of the file."""
    section, *rest = loc or ("",)
    inner = rest[1:] if section in KINDED else rest
    return ".".join(str(part) for part in (section, *inner))


def _told(kind: str, message: str) -> str:
    return _PLAIN.get(kind, message.removeprefix("Value error, "))


_PLAIN = {"extra_forbidden": "there is no such key"}
_PAGE = "see docs/pipelines.md"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _apply_override(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError("an override looks like a.b=value", where=override, next_step=_PAGE)
    *parents, last = key.split(".")
    place: Any = document
    for parent in parents:
        place = _child(place, parent, override) if isinstance(place, list) else place.setdefault(parent, {})
        if not isinstance(place, dict | list):
            raise ConfigError(f"{parent!r} is a value, not a section", where=override, next_step=_PAGE)
    if isinstance(place, list):
        place[_index(place, last, override)] = _value(text, override)
    else:
        place[last] = _value(text, override)


def _value(text: str, override: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"the value is not YAML: {_one_line(error)}", where=override, next_step=_PAGE) from None


def _child(items: list[Any], key: str, override: str) -> Any:
    return items[_index(items, key, override)]


def _index(items: list[Any], key: str, override: str) -> int:
    """Position in a list: a number, or the name of a step (``prepare.steps.filter.l_freq=0.5``)."""
    named = [i for i, item in enumerate(items) if isinstance(item, dict) and item.get("step") == key]
    if len(named) == 1:
        return named[0]
    if key.isdigit() and int(key) < len(items):
        return int(key)
    raise ConfigError(f"{key!r} is neither a position nor the name of one step", where=override, next_step=_PAGE)
