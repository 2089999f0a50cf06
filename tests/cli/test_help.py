import json
import subprocess
import sys

import pytest

from support.command import neuromill

VERBS = (
    "demo", "catalog refresh", "catalog list", "catalog show", "catalog query", "plan", "ingest", "prepare",
    "tokenizer fit", "tokenizer show", "tokenizer compare", "tokenize", "train", "embed", "import", "run",
    "shards ls", "shards inspect", "shards verify", "status", "retry", "explain", "doctor",
)  # fmt: skip
HEAVY = {
    "torch", "prefect", "mne", "dask", "distributed", "pynwb", "zarr", "xarray", "pandas", "scipy", "duckdb",
    "pyarrow", "numpy", "pydantic", "matplotlib", "sqlite3", "neuromill_flows",
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    ended = neuromill(*verb.split(), "--help")
    assert (ended.code, ended.err) == (0, "")
    usage, _, text = ended.out.partition("\n")
    assert usage.startswith(f"Usage: neuromill {verb}")
    assert text.strip()
    assert "``" not in text  # marks of the source are no help


def test_the_help_names_every_verb_and_the_bare_command_is_help() -> None:
    ended = neuromill("--help")
    assert ended.code == 0
    listed = {line.split()[1] for line in ended.out.splitlines() if line.startswith("│ ") and line[2] != " "}
    assert listed >= {verb.split()[0] for verb in VERBS} | {"flows"}
    assert neuromill().out == ended.out


def test_every_listing_verb_has_json_and_every_verb_that_makes_something_a_dry_run() -> None:
    makes = {"demo", "ingest", "prepare", "tokenizer fit", "tokenize", "train", "embed", "run", "retry"}
    for verb in VERBS:
        text = neuromill(*verb.split(), "--help").out
        assert "--json" in text
        assert "--home" in text
        assert ("--dry-run" in text) == (verb in makes)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import json, sys\n"
        "from neuromill.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "sys.stderr.write(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(json.loads(ended.stderr)) & HEAVY


def test_flows_are_listed_without_prefect_and_there_when_asked_for() -> None:
    code = "from neuromill.cli.main import main; main(['flows', '--help'])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"setup", "env", "serve", "run"} <= set(ended.stdout.split())


def test_version() -> None:
    from neuromill import __version__

    assert neuromill("--version").out == f"{__version__}\n"
