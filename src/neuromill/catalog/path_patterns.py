"""Globs over relative paths, and patterns: globs with placeholders for the entities that a path carries."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

from neuromill.records import ENTITIES, Entities, RecordingError, check_relative_path

LABEL = "[+.]*[A-Za-z0-9][A-Za-z0-9+.]*"  # never "." or "..", whatever a file is called
PLACEHOLDERS = tuple(name for name in ENTITIES if name != "split")  # a split is a part of one recording
_WILDCARDS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_WILDCARD = re.compile(r"(\*\*/|\*\*|\*|\?)")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def glob_match(glob: str, path: str) -> bool:
    """Whether a relative path matches a glob; letters' case matters.

    ``*`` and ``?`` stay in one folder, ``**/`` crosses folders (or none), a glob without a slash is compared with the
    file name alone. Nothing else has a meaning.
    """
    return _compiled_glob(glob).fullmatch(_compared(glob, path)) is not None


def check_path_pattern(pattern: str) -> str:
    """Return a usable pattern as it is; "" is none.

    Raises
    ------
    ValueError
        A placeholder is no entity, or there is none; a brace has no partner; where a label begins or ends cannot be
        told; no relative path could match.
    """
    if not pattern:
        return pattern
    between, names = _parts(pattern)
    for name in names:
        if name not in PLACEHOLDERS:
            raise ValueError(f"{{{name}}} is no entity; use {', '.join(f'{{{known}}}' for known in PLACEHOLDERS)}")
    if any(brace in text for text in between for brace in "{}"):
        raise ValueError("a brace of the path pattern has no partner")
    if not names:
        raise ValueError("a path pattern needs a placeholder, such as {subject}")
    _check_borders(between)
    try:
        check_relative_path(pattern)
    except RecordingError as error:
        raise ValueError(f"no file can match the path pattern: {error.what}") from error
    return pattern


def match_path(pattern: str, path: str) -> Entities | None:
    """Entities that a relative path carries, None where the pattern does not match it.

    Parameters
    ----------
    pattern
        ``{subject}_{session}.mat``: a placeholder is an entity by its long name and stands for a label of letters,
        digits, ``+`` and ``.`` with at least one letter or digit; one that occurs twice stands for one label. The
        rest is a glob (see `glob_match`).
    path
        Relative to the root of the dataset, ``/`` between its parts.
    """
    found = _compiled_pattern(pattern).fullmatch(_compared(pattern, path))
    return Entities(**found.groupdict()) if found else None


def _compared(glob: str, path: str) -> str:
    return path if "/" in glob else path.rsplit("/", 1)[-1]


def _parts(pattern: str) -> tuple[list[str], list[str]]:
    """Texts before, between and after the placeholders, and the names of these: one fewer."""
    parts = _PLACEHOLDER.split(pattern)
    return parts[::2], parts[1::2]


def _check_borders(between: list[str]) -> None:
    """Refuse what would cut a label anywhere: of x12.edf, ``*{subject}.edf`` would make subject 2."""
    if any(left.endswith("*") or right.startswith("*") for left, right in pairwise(between)) or not all(between[1:-1]):
        raise ValueError("a placeholder of the path pattern touches another one, or a *: put what stands between")


def _expression(glob: str) -> str:
    return "".join(_WILDCARDS.get(token) or re.escape(token) for token in _WILDCARD.split(glob))


@lru_cache(maxsize=256)
def _compiled_glob(glob: str) -> re.Pattern[str]:
    return re.compile(_expression(glob))


@lru_cache(maxsize=64)
def _compiled_pattern(pattern: str) -> re.Pattern[str]:
    between, names = _parts(pattern)
    labels = [f"(?P={name})" if name in names[:place] else f"(?P<{name}>{LABEL})" for place, name in enumerate(names)]
    texts = [_expression(text) for text in between]
    return re.compile("".join(part for pair in zip(texts, [*labels, ""], strict=True) for part in pair))
