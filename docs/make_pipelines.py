"""Write the tables of keys in ``pipelines.md`` from the models that read a pipeline file."""  # noqa: INP001

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

import yaml

from neuromill.records import Config
from neuromill.signals.spike_steps import SmoothCovariates
from neuromill.signals.steps import Step
from neuromill.stages.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_KINDS = ("prepare[kind: signal]", "tokenizer[kind: biocodec]", "fit[kind: biocodec]", "train[kind: criss_cross]")
MISSING = "MISSING"  # a field that neither its model nor the table above explains; a test looks for it
PAGE = Path(__file__).parent / "pipelines.md"
BEGIN, END = "<!-- keys: written by make_pipelines.py -->", "<!-- keys: end -->"
RULES = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤", "multipleOf": "multiple of"}

# What the models do not say, because there the name says it to whoever knows the method.
MEANINGS = {
    "name": "names the pipeline in messages and in Prefect",
    "title": "for people",
    "kind": "which of the kinds below",
    "input": "what the network sees of a signal",
    "mu": "of the companding law; 255 is telephony's",
    "weight_decay": "of AdamW",
    "amplitude_weight": "of the error of the spectrum's amplitude",
    "phase_weight": "of the error of its phase",
    "temperature": "of the contrastive loss",
    "prepare": "preprocessing of one recording",
    "tokenizer": "the codec",
    "pretrained": "a tokenizer that exists already; then nothing is fitted",
    "fit": "how the tokenizer is fitted",
    "gate": "what its codebooks must show before it is published",
    "tokenize": "how recordings are encoded",
    "train": "the model and its training",
    "pretrained.source": "folder, or hub id",
    "pretrained.revision": "commit or tag of the hub id",
    "prepare.steps[pick].picks": "channel types, `meg` (mag and grad), `data`, or channel names",
    "prepare.steps[pick].exclude": "channel names to leave out, or `bads`",
    "prepare.steps[notch_filter].freqs": "Hz; `line` is the recording's line frequency and its harmonics",
    "prepare.steps[notch_filter].notch_widths": "Hz; null is 1/200 of each frequency, as in MNE",
    "prepare.steps[notch_filter].trans_bandwidth": "Hz",
    "prepare.steps[filter].l_freq": "lower edge of the pass-band in Hz; null for a low-pass",
    "prepare.steps[filter].h_freq": "upper edge of the pass-band in Hz; null for a high-pass",
    "prepare.steps[filter].l_trans_bandwidth": "Hz, below `l_freq`",
    "prepare.steps[filter].h_trans_bandwidth": "Hz, above `h_freq`",
    "prepare.steps[smooth].seconds": "length of the window",
    "prepare.steps[smooth].direction": "`causal` looks back only, `centred` half its length ahead",
    "prepare.steps[resample].sfreq": "new rate in Hz",
    "filter_length": "`auto`, a time (`10s`) or a number of samples, as in MNE",
    "phase": "no delay",
    "fir_window": "window of the FIR design",
    "fir_design": "MNE's method",
    "tokenizer.kind": "which codec",
    "tokenizer.network": "sizes of the codec",
    "tokenizer.network.n_quantizers": "levels of the residual quantizer",
    "tokenizer.network.codebook_size": "rows per codebook; codes are uint8",
    "tokenizer.network.codebook_dim": "width of a row",
    "tokenizer.normalization": "what happens to a row before the codec sees it",
    "fit.segment_seconds": "length of a window of signal",
    "fit.batch_size": "rows (one channel of one window) per step",
    "fit.steps": "optimisation steps",
    "fit.lr": "largest learning rate",
    "fit.betas": "of Adam",
    "fit.warmup_share": "share of the steps in which the learning rate rises",
    "fit.ema_decay": "of the moving codebook averages",
    "fit.kmeans_iterations": "of the start of each codebook",
    "fit.losses": "weights of the loss",
    "fit.revival": "what happens to dead codebook rows",
    "fit.max_grad_norm": "clip gradients to it; null does not",
    "fit.seed": "one seed, same bytes",
    "fit.checkpoint_every": "steps between checkpoints of an unfinished fit",
    "fit.losses.time_weight": "of the error of the waveform",
    "fit.losses.huber_beta": "where the waveform error turns from square to absolute",
    "fit.losses.frequency_weight": "of the error of the spectra",
    "fit.losses.stft_windows": "window lengths of the spectra, in samples",
    "fit.losses.commitment_weight": "of the distance between latent and code",
    "fit.revival.enabled": "replace rows that nobody uses",
    "fit.revival.every": "steps between two looks",
    "fit.revival.below_share": "a row used less than this share of an even use is dead",
    "tokenize.segment_seconds": "the codec starts anew after each; rounded down to whole frames",
    "tokenize.precision": "arithmetic of the forward pass",
    "tokenize.rows_per_forward": "rows per forward pass; part of the identity because it decides the last bit",
    "train.seed": "one seed, same windows and masks",
    "train.model": "sizes of the transformer; those of the codes come from the tokenizer",
    "train.windows": "how recordings are cut",
    "train.masking": "which frames are hidden",
    "train.optim": "AdamW and its schedule",
    "train.log_every_steps": "steps between lines of `metrics.jsonl`",
    "train.validate_every_steps": "steps between validations",
    "train.checkpoint_every_steps": "steps between checkpoints",
    "train.loader_threads": "threads that fill batches; not part of the identity",
    "train.model.n_layers": "layers",
    "train.model.feedforward_factor": "hidden width of the feed-forward part, in `latent_dim`",
    "train.model.position_bandwidth": "spread of the random frequencies of sensor positions",
    "train.model.orientation_bandwidth": "the same of orientations",
    "train.model.n_sensor_types": "kinds of sensor that get an embedding: magnetometer, gradiometer",
    "train.model.n_quantizers": "set from the tokenizer",
    "train.model.codebook_size": "set from the tokenizer",
    "train.model.codebook_dim": "set from the tokenizer",
    "train.masking.sfreq": "set from the tokenizer",
    "train.masking.hop_samples": "set from the tokenizer",
    "train.optim.lr": "largest learning rate",
    "train.optim.betas": "of AdamW",
    "train.optim.weight_decay": "of AdamW",
    "train.optim.warmup_steps": "steps in which the learning rate rises",
    "train.optim.final_lr_share": "of `lr`, at the last step",
    "train.optim.clip_norm": "largest norm of the gradient",
}


def sections() -> Iterator[tuple[str, type[Config]]]:
    """Models of a pipeline file with the path they have in it, in the order of the file.

    A section that comes in several kinds is there once per kind, as ``prepare[kind: spikes]``.
    """
    yield from _below("", Pipeline)


def _below(path: str, model: type[Config]) -> Iterator[tuple[str, type[Config]]]:
    yield path, model
    if path == "prepare[kind: signal]":
        for step in get_args(get_args(Step)[0]):
            yield f"prepare.steps[{step.model_fields['step'].default}]", step
    if path == "prepare[kind: spikes]":
        yield "prepare.steps[smooth]", SmoothCovariates
    for name, field in model.model_fields.items():
        kinds = _models_in(field.annotation)
        for inner in kinds:
            label = f"{name}[kind: {inner.model_fields['kind'].default}]" if "kind" in inner.model_fields else name
            if name != "steps" or len(kinds) == 1:
                yield from _below(f"{path}.{label}".lstrip("."), inner)


def _models_in(annotation: Any) -> list[type[Config]]:
    """Models that a field may hold, looked for in unions and annotations."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    if get_origin(annotation) is tuple:
        return []
    return [model for part in get_args(annotation) for model in _models_in(part)]


def meanings(model: type[Config]) -> dict[str, str]:
    """What the docstrings of a model and its bases say of their fields."""
    said: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if isinstance(one, type) and issubclass(one, Config) and one is not Config:
            said |= _meanings_of(one)
    return said


def _meanings_of(model: type[Config]) -> dict[str, str]:
    """Read the ``Attributes`` section of a docstring, and the strings below fields."""
    said: dict[str, str] = {}
    tree = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(tree, ast.ClassDef)  # noqa: S101
    for before, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(after, ast.Expr):
            said[before.target.id] = _text(str(ast.literal_eval(after.value)))
    _, _, attributes = inspect.cleandoc(model.__doc__ or "").partition("Attributes\n----------\n")
    for names, text in re.findall(r"^(\S.*)\n((?: {4}.*\n?)+)", attributes, re.MULTILINE):
        said |= dict.fromkeys(names.split(", "), _text(text))
    return said | {name: field.description for name, field in model.model_fields.items() if field.description}


def _text(text: str) -> str:
    joined = " ".join(text.split()).replace("``", "`").replace("None ", "null ").rstrip(".")
    return joined if joined[:2].isupper() else joined[:1].lower() + joined[1:]


def keys(path: str, model: type[Config]) -> Iterator[tuple[str, str, str, str]]:
    """Key, what it may be, default and meaning of every field of a section."""
    said, schema = meanings(model), model.model_json_schema()["properties"]
    keys_only = plain(path)
    first = path == keys_only or any(path.startswith(kind) for kind in FIRST_KINDS)
    for name, field in model.model_fields.items():
        if name == "step":
            continue
        full = f"{keys_only}.{name}".lstrip(".")
        own, general = (MEANINGS.get(full), said.get(name)) if first else (said.get(name), MEANINGS.get(full))
        meaning = own or general or MEANINGS.get(name) or MISSING
        steps = name == "steps" and keys_only == "prepare"
        if _models_in(field.annotation) or steps:
            default = "required" if field.is_required() else "null" if field.default is None else "below"
            yield name, "list of steps" if steps else "section", default, meaning
        else:
            yield name, kind(schema[name]), "required" if field.is_required() else _written(field.default), meaning


def plain(path: str) -> str:
    """Path of a section without the kinds: what its keys are in a file."""
    return re.sub(r"\[kind: [a-z0-9_]+\]", "", path)


def kind(schema: dict[str, Any]) -> str:
    """Say in words what a JSON Schema allows."""
    if "anyOf" in schema:
        return " or ".join(kind(part) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "type" not in schema:
        return "value"
    if schema["type"] == "array":
        items = schema.get("prefixItems", [schema.get("items", {"type": "value"})])
        return f"list of {f'{len(items)} x ' if 'prefixItems' in schema else ''}{kind(items[0])}"
    rules = [f"{sign} {schema[rule]:g}" for rule, sign in RULES.items() if rule in schema]
    names = {"string": "text", "number": "number", "integer": "whole number", "boolean": "true, false"}
    return " ".join([names.get(schema["type"], schema["type"]), ", ".join(rules)]).strip()


def _written(default: Any) -> str:
    value = list(default) if isinstance(default, tuple) else default
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
    return f"`{text}`"


def tables() -> str:
    """Return every section as Markdown."""
    parts = []
    for path, model in sections():
        title = f"### `{path}`" if path else "### Top level"
        rows = [f"| `{name}` | {what} | {default} | {meaning} |" for name, what, default, meaning in keys(path, model)]
        parts.append("\n".join([title, "", "| key | value | default | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts)


def rendered(page: str) -> str:
    """Return the page with its tables as the models are now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
