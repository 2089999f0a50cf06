"""What the verbs that only look say, to people and to programs."""

import json
import shutil
from pathlib import Path

import pytest

from neuromill.cli.output import print_table
from support.command import neuromill
from support.stages import tree_digests, workspace_at

from .conftest import BAD, Walked

STAGES = ["ingest", "prepare", "fit", "tokenize", "train"]
FORECAST = {"stage", "identity", "found", "done", "failed", "todo", "bytes_in", "bytes_out", "seconds", "note"}
RESULT = {"stage", "identity", "found", "already_done", "done", "failed", "seconds", "bytes_out", "note"}


def test_run_reports_each_stage(walked: Walked) -> None:
    rows = walked.run.document
    assert [row["stage"] for row in rows] == STAGES
    assert all(set(row) == RESULT for row in rows)
    assert [(row["found"], row["done"], row["failed"]) for row in rows] == [
        (3, 3, 0), (3, 2, 1), (1, 1, 0), (2, 2, 0), (1, 1, 0),
    ]  # fmt: skip
    assert [(row["found"], row["done"], row["note"]) for row in walked.embed.document] == [(2, 2, "")]


def test_running_again_does_nothing_and_says_so(walked: Walked) -> None:
    rows = neuromill("run", *walked.chosen, "--json").document
    assert [row["done"] for row in rows] == [0] * 5
    assert [row["already_done"] for row in rows] == [3, 2, 1, 2, 1]
    assert {row["note"] for row in rows} == {"nothing to do"}


def test_until(walked: Walked) -> None:
    rows = neuromill("run", *walked.chosen, "--until", "prepare", "--json").document
    assert [row["stage"] for row in rows] == STAGES[:2]


def test_plan(walked: Walked) -> None:
    rows = neuromill("plan", *walked.chosen, "--json").document
    assert [row["stage"] for row in rows] == STAGES
    assert all(set(row) == FORECAST for row in rows)
    assert all(row["found"] == row["done"] + row["failed"] + row["todo"] for row in rows)
    assert [row["done"] for row in rows] == [3, 2, 1, 2, 1]
    assert rows[1]["note"] == "1 too_short"
    changed = neuromill("plan", *walked.chosen, "--set", "prepare.steps.filter.l_freq=2.0", "--json").document
    assert [row["done"] for row in changed] == [3, 0, 0, 0, 0]


def test_plan_of_a_part_and_of_a_condition(walked: Walked) -> None:
    parts = [neuromill("plan", *walked.chosen, "--part", f"{i}/2", "--json").document for i in (1, 2)]
    assert sum(part[0]["found"] for part in parts) == 3
    one = neuromill("plan", *walked.chosen, "--where", "subject = '02'", "--json").document
    assert one[0]["found"] == 1


def test_catalog_list_and_show(walked: Walked) -> None:
    cards = neuromill("catalog", "list", "--json", "--home", walked.home).document
    assert {"ds004078", "ds999001"} <= {card["id"] for card in cards}
    assert {"id", "version", "archive", "licence", "access", "splits", "expected", "indexed"} <= set(cards[0])
    card = neuromill("catalog", "show", "ds004078", "--json", "--home", walked.home).document
    assert (card["indexed_recordings"], card["differences"]) == (0, [])
    assert "neuromill catalog refresh ds004078" in neuromill("catalog", "show", "ds004078", "--home", walked.home).out


def test_catalog_query(walked: Walked) -> None:
    here = ("--home", walked.home)
    rows = neuromill("catalog", "query", "subject <> '03'", "--json", *here).document
    assert [(row["dataset"], row["subject"], row["n_channels"]) for row in rows] == [
        ("lab", "01", None),
        ("lab", "02", None),
    ]
    counted = neuromill("catalog", "query", "SELECT count(*) AS n FROM recordings", "--json", *here).document
    assert counted == [{"n": 3}]
    assert neuromill("catalog", "query", "true", *here).out.endswith("3 rows\n")


def test_status(walked: Walked) -> None:
    document = neuromill("status", "--json", "--home", walked.home).document
    by_stage = {row["stage"]: row for row in document["stages"]}
    assert set(by_stage) == {"ingest", "prepare", "tokenize", "embed"}
    assert all(row["found"] == row["done"] + row["failed"] + row["waiting"] for row in document["stages"])
    assert by_stage["prepare"]["by_code"] == {"too_short": 1}
    (failure,) = document["failures"]
    assert (failure["recording"], failure["code"]) == (f"lab@local/{BAD}", "too_short")
    assert failure["next"]
    assert [(row["stage"], row["ended"] is not None, row["seconds"] > 0) for row in document["runs"]] == [
        ("fit", True, True), ("train", True, True),
    ]  # fmt: skip
    trained = document["runs"][1]["facts"]
    told = f"loss {trained['first_loss']:.3f} -> {trained['last_loss']:.3f}"
    assert told in " ".join(neuromill("status", "--home", walked.home).out.split())


def test_a_run_that_did_not_end_is_told(tmp_path: Path) -> None:
    with workspace_at(tmp_path) as workspace:
        workspace.ledger.begin_run("fit", "abc")
    (run,) = neuromill("status", "--json", "--home", tmp_path).document["runs"]
    assert (run["stage"], run["identity"], run["ended"], run["seconds"]) == ("fit", "abc", None, None)
    assert neuromill("status", "--home", tmp_path).out.endswith("not ended\n")


def test_explain(walked: Walked) -> None:
    for name in (BAD, f"lab@local/{BAD}"):
        ((found, events),) = neuromill("explain", name, "--json", "--home", walked.home).document.items()
        assert found == f"lab@local/{BAD}"
        assert set(events[-1]) == {"at", "stage", "identity", "what", "code", "message", "next", "attempt"}
        assert [event["code"] for event in events if event["what"] == "failed"] == ["too_short"]
    told = neuromill("explain", BAD, "--home", walked.home).out
    assert "next: lower prepare.min_seconds" in told
    assert "docs/failures/too_short.md" in told


def test_retry_counts_before_it_acts(walked: Walked, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(walked.home, home, symlinks=True)
    here = ("--json", "--home", home)
    assert neuromill("retry", "--dry-run", *here).document == {"retried": 0, "dry_run": True}
    for choice in (["--everything"], ["--code", "too_short"], [BAD]):
        assert neuromill("retry", *choice, "--dry-run", *here).document == {"retried": 1, "dry_run": True}
    assert neuromill("retry", "--code", "too_short", *here).document == {"retried": 1, "dry_run": False}
    assert neuromill("retry", "--everything", *here).document == {"retried": 0, "dry_run": False}


def test_shards(walked: Walked) -> None:
    stores = neuromill("shards", "ls", "--json", "--home", walked.home).document
    assert {store["stage"]: store["recordings"] for store in stores} == {"prepare": 2, "tokenize": 2, "embed": 2}
    assert all(store["indexed"] and store["bytes"] > 0 and store["hours"] > 0 for store in stores)
    verified = neuromill("shards", "verify", "--json", "--home", walked.home)
    assert (verified.code, verified.document["problems"], len(verified.document["stores"])) == (0, [], 3)
    group = next(Path(store["folder"]).glob("*.zarr") for store in stores if store["stage"] == "tokenize")
    found = neuromill("shards", "inspect", next(group), "--json").document
    codes = next(array for array in found["arrays"] if array["array"] == "codes")
    assert (codes["dims"], codes["dtype"]) == ("frame x quantizer x channel", "uint8")
    assert found["attributes"]["kind"] == "tokens"


def test_shards_ls_tells_of_a_damaged_group(walked: Walked, tmp_path: Path) -> None:
    shutil.copytree(walked.home / "stores", tmp_path / "stores")
    group = next((tmp_path / "stores").glob("*/tokenize/*/*.zarr"))
    (group / "zarr.json").write_text("{")
    stores = {s["stage"]: s for s in neuromill("shards", "ls", "--json", "--home", tmp_path).document}
    assert {stage: store["recordings"] for stage, store in stores.items()} == {"prepare": 2, "tokenize": 1, "embed": 2}
    (problem,) = stores["tokenize"]["damaged"]
    assert problem.startswith(f"{group.stem}: file has 1 bytes")
    assert stores["prepare"]["damaged"] == []
    listed = neuromill("shards", "ls", "--home", tmp_path)
    assert listed.code == 0
    assert "1 damaged" in listed.out
    assert problem in listed.out


def test_tokenizer_show(walked: Walked) -> None:
    identity = next(row["identity"] for row in walked.run.document if row["stage"] == "fit")
    for name in (identity, identity[:6], walked.home / "tokenizers" / identity):
        shown = neuromill("tokenizer", "show", name, "--json", "--home", walked.home).document
        assert shown["n_quantizers"] == len(shown["levels"])
        assert set(shown["levels"][0]) == {"level", "perplexity", "used_share", "dominant_share"}
        assert shown["fitted_on"] == [f"lab@local/sub-0{i}_task-rest_run-01_meg" for i in (1, 2)]
    assert "perplexity" in neuromill("tokenizer", "show", identity, "--home", walked.home).out


def test_doctor(walked: Walked) -> None:
    findings = neuromill("doctor", "--json", "--home", walked.home).document
    assert {"python", "sqlalchemy", "fastapi", "zarr", "torch", "git", "disk", "inodes", "ledger"} == {
        finding["check"] for finding in findings
    }
    assert all(set(finding) == {"check", "ok", "found", "next"} for finding in findings)


def test_doctor_and_the_rest_create_no_home(walked: Walked, tmp_path: Path) -> None:
    home = tmp_path / "none"
    findings = {f["check"]: f for f in neuromill("doctor", "--json", "--home", home).document}
    assert (findings["ledger"]["ok"], findings["ledger"]["found"]) == (True, "no ledger yet")
    for verb in (
        ("status",), ("explain", BAD), ("retry",), ("retry", "--dry-run"), ("shards", "ls"), ("shards", "verify"),
        ("report", walked.pipeline, "--data", walked.data),
    ):  # fmt: skip
        ended = neuromill(*verb, "--home", home)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"neuromill: there is no such home [{home}] -> ")
    asked = neuromill("catalog", "query", "true", "--home", home)
    assert (asked.code, asked.err) == (
        2, f"neuromill: nothing is indexed [{home}] -> `neuromill catalog refresh`\n",
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


WRITERS = ("ingest", "prepare", "tokenizer fit", "tokenize", "train", "embed", "run")


def made(home: Path) -> dict[str, str]:
    """Everything below a home but the ledger's own file, which is compared by what it says."""
    return {name: digest for name, digest in tree_digests(home).items() if not name.startswith("ledger.sqlite")}


@pytest.mark.parametrize("verb", WRITERS)
def test_dry_run_changes_nothing(verb: str, walked: Walked) -> None:
    before, status = made(walked.home), neuromill("status", "--json", "--home", walked.home).out
    changed = ("--set", "prepare.steps.filter.l_freq=2.0")
    for arguments in (walked.chosen, (*walked.chosen, *changed)):
        ended = neuromill(*verb.split(), *arguments, "--dry-run", "--json")
        assert ended.code == 0
        stages = [row["stage"] for row in ended.document]
        assert stages == (STAGES if verb == "run" else [verb.removeprefix("tokenizer ")])
    assert made(walked.home) == before
    assert neuromill("status", "--json", "--home", walked.home).out == status


@pytest.mark.parametrize("verb", WRITERS)
def test_dry_run_in_a_new_home_writes_listings_only(verb: str, walked: Walked, tmp_path: Path) -> None:
    home = tmp_path / "home"
    ended = neuromill(*verb.split(), walked.pipeline, "--data", walked.data, "--home", home, "--dry-run", "--json")
    assert ended.code == 0
    assert sum(row["done"] for row in ended.document) == 0
    assert {name.split("/")[0] for name in made(home)} <= {"catalog", "cache"}
    assert not list((home / "cache" / "raw").glob("*"))
    assert neuromill("status", "--json", "--home", home).document == {"stages": [], "runs": [], "failures": []}


def test_demo_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = neuromill("demo", "--dry-run")
    assert ended.code == 0
    assert str(tmp_path / "neuromill-demo") in ended.out
    assert not list(tmp_path.iterdir())


HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]bold[/red]\r\nsecond"
SHOWN = r"\x1b[2J\x1b]0;owned\x07[red]bold[/red]\r\nsecond"


def test_a_hostile_title_is_shown_as_text(tmp_path: Path) -> None:
    card = {
        "id": "evil", "title": HOSTILE, "archive": "openneuro", "version": "1", "modality": "meg", "device": "none",
        "licence": "CC0", "citation": "nobody", "recordings": {"datatypes": ["meg"]},
    }  # fmt: skip
    (tmp_path / "catalogs").mkdir()
    (tmp_path / "catalogs" / "evil.yaml").write_text(json.dumps(card))
    for arguments in (["catalog", "list"], ["catalog", "show", "evil"]):
        ended = neuromill(*arguments, "--home", tmp_path)
        assert ended.code == 0
        assert SHOWN in ended.out
        assert not {c for c in ended.out if not c.isprintable()} - {"\n"}
    shown = neuromill("catalog", "show", "evil", "--json", "--home", tmp_path)
    assert shown.document["title"] == HOSTILE
    assert "\x1b" not in shown.out


def test_on_a_terminal_a_hostile_name_is_text_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(HOSTILE, ("[red]name", "n"), [(HOSTILE, 1)])
    out = capsys.readouterr().out
    assert out.count(SHOWN) == 2
    assert "[red]name" in out
    assert "\x1b[2J" not in out


def test_lines_where_nobody_watches(walked: Walked, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line per row, whatever its length and whatever colours the environment asks for."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    lines = neuromill("status", "--home", walked.home).out.splitlines()
    assert [line.split()[1] for line in lines[2:6]] == ["ingest", "prepare", "tokenize", "embed"]
    assert [line.split()[:1] for line in lines[6:]] == [[], ["run"], ["-----"], ["fit"], ["train"]]
    assert not [c for line in lines for c in line if not c.isprintable()]
    progress = neuromill(
        "run", *walked.chosen, "--set", "fit.steps=2", "--set", "train.max_steps=1", "--engine", "serial"
    )
    assert "fit: 2 steps" in progress.err.splitlines()
    assert not [c for c in progress.err if not c.isprintable() and c != "\n"]
