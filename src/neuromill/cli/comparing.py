"""``neuromill tokenizer compare``: one table, and a picture for those who ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuromill.cli.output import print_json, print_table, say
from neuromill.records import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from neuromill.cli.options import Choice, Common
    from neuromill.stages.pipeline import Pipeline


def compare_and_show(
    common: Common,
    choice: Choice,
    pipelines: Sequence[Pipeline],
    others: Sequence[str],
    *,
    n_windows: int,
    seconds: float | None,
    html: Path | None,
    png: Path | None,
) -> None:
    """Compare, print, and write the picture where it was asked for; a folder that is not there fails first."""
    from neuromill.stages.comparing import compare_tokenizers
    from neuromill.stages.comparison_table import contents_of, notes_of, table_of
    from neuromill.stages.looking import require_home

    for place in (html, png):
        if place is not None and (place.is_dir() or not place.absolute().parent.is_dir()):
            raise ConfigError(
                "not a file in a folder that is there", where=str(place), next_step="make the folder first"
            )
    workspace = require_home(common.workspace())
    found = compare_tokenizers(workspace, pipelines, choice.selection(), others, n_windows=n_windows, seconds=seconds)
    if html is not None or png is not None:
        from neuromill.reports.comparison import write_comparison_page, write_comparison_png

        contents = contents_of(found)
        if html is not None:
            write_comparison_page(contents, html)
        if png is not None:
            write_comparison_png(contents, png)
    if common.json:
        print_json(found.as_dict())
        return
    print_table("", *table_of(found))
    say("\n" + "\n".join(notes_of(found)))
    for place in (html, png):
        if place is not None:
            say(f"picture: {place}")
