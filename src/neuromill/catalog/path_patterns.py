"""Paths that carry entities without being BIDS: patterns with placeholders for the labels."""

from __future__ import annotations

import re
from functools import lru_cache

from neuromill.records import ENTITIES, Entities

LABEL = "[A-Za-z0-9+.]+"
PLACEHOLDERS = tuple(name for name in ENTITIES if name != "split")  # a split is a part of one recording
_TOKEN = re.compile(r"(\{[^{}]*\}|\*\*/|\*\*|\*|\?)")
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def check_path_pattern(pattern: str) -> str:
    """Return the pattern, or raise ValueError where it names no entity, an unknown one, or has a lone brace."""
    names = [token[1:-1] for token in _TOKEN.split(pattern) if token.startswith("{") and token.endswith("}")]
    for name in names:
        if name not in PLACEHOLDERS:
            raise ValueError(f"{{{name}}} is no entity; use {', '.join(f'{{{known}}}' for known in PLACEHOLDERS)}")
    if pattern and not names:
        raise ValueError("a path pattern needs a placeholder, such as {subject}")
    if pattern.count("{") != len(names) or pattern.count("}") != len(names):
        raise ValueError("a brace of the path pattern has no partner")
    return pattern


def match_path(pattern: str, path: str) -> Entities | None:
    """Entities that a relative path carries, None where the pattern does not match it.

    Parameters
    ----------
    pattern
        ``{subject}_{session}.mat``: a placeholder is an entity by its long name and stands for a label of letters,
        digits, ``+`` and ``.``; one that occurs twice stands for one label. ``*`` stays in one folder, ``**/``
        crosses folders, a pattern without a slash is compared with the file name alone. Letters' case matters.
    path
        Relative to the root of the dataset, ``/`` between its parts.
    """
    subject = path if "/" in pattern else path.rsplit("/", 1)[-1]
    found = _compiled(pattern).fullmatch(subject)
    return Entities(**found.groupdict()) if found else None


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    seen: set[str] = set()
    return re.compile("".join(_translated(token, seen) for token in _TOKEN.split(pattern)))


def _translated(token: str, seen: set[str]) -> str:
    if not token.startswith("{"):
        return _WILD.get(token) or re.escape(token)
    name = token[1:-1]
    if name in seen:
        return f"(?P={name})"
    seen.add(name)
    return f"(?P<{name}>{LABEL})"
