"""The pages say what is so: links lead somewhere, commands parse, examples are valid, tables are fresh."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from pydantic import TypeAdapter

from neuromill.catalog.cards import Card
from neuromill.cli.main import app
from neuromill.cli.main import main as neuromill_main
from neuromill.stages.pipeline import Pipeline, load_pipeline
from neuromill.stages.shipped import pipeline_names

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`(neuromill [^`\n]+)`")


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Fenced blocks in these languages, without the indent of the fence."""
    for indent, language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield "\n".join(line.removeprefix(indent) for line in text.splitlines()) + "\n"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index_or_in_the_index_of_its_folder() -> None:
    linked = set()
    for index in (DOCS / "index.md", DOCS / "failures" / "index.md"):
        linked |= {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text())}
    assert set(PAGES) - linked == {DOCS / "index.md"}


def test_the_page_of_the_architecture_names_every_room() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, re.MULTILINE)
    rooms = {path.name for path in (ROOT / "src" / "neuromill").iterdir() if (path / "__init__.py").is_file()}
    assert {name.strip("` ") for row in rows for name in row.split(",")} == rooms - {"cli"}
    assert "cli" in text


def commands() -> list[tuple[str, str]]:
    """Every ``neuromill ...`` line of shell blocks, of indented blocks, and between single backticks."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shell = "".join(blocks(page, "sh", "bash", "shell", "console"))
        indented = re.findall(r"^(?: {4,})(neuromill .+)$", FENCE.sub("", text), re.MULTILINE)
        fenced = re.findall(r"^(?:\$ )?(neuromill .+)$", shell, re.MULTILINE)
        quoted = INLINE.findall(FENCE.sub("", text))
        found += [(name_of(page), line.strip()) for line in (*fenced, *indented, *quoted)]
    return sorted(set(found))


@cache
def full_app() -> object:
    """The command line with the verbs of ``flows``."""
    with pytest.raises(SystemExit):
        neuromill_main(["--version"])
    return app


def arguments_of(line: str) -> list[str]:
    """Tokens of a line; ``a | b`` is the first alternative, ``[--optional X]`` is given, ``> file`` is the shell's."""
    lexer = shlex.shlex(line.replace("[", "").replace("]", ""), posix=True, punctuation_chars="|>;&")
    lexer.whitespace_split = True
    return list(takewhile(lambda token: token.strip("|>;&"), lexer))[1:]


# Words in capitals stand for a value of the right kind.
VALUES = {"N": "2", "i/N": "1/2"}


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_parse(page: str, line: str) -> None:
    tokens = [VALUES.get(token, token) for token in arguments_of(line)]
    is_bare = all(not token.startswith("-") and token.islower() for token in tokens) and len(tokens) <= 2
    if tokens in (["..."], ["VERB", "--help"]) or tokens[-1:] == ["--help"]:
        return
    try:
        full_app().parse_args(tokens, exit_on_error=False, print_error=False)
    except Exception as error:
        # Prose names a verb without its arguments: `neuromill prepare`. The verb must exist.
        if is_bare and type(error).__name__ == "MissingArgumentError":
            return
        raise AssertionError(f"{page}: {line}: {error}") from error


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 40


def yaml_blocks() -> list[tuple[str, str]]:
    return [(name_of(page), block) for page in PAGES for block in blocks(page, "yaml", "yml")]


@pytest.mark.parametrize(("page", "text"), yaml_blocks())
def test_yaml_blocks_are_pipelines_cards_or_parts_of_them(page: str, text: str) -> None:
    document = yaml.safe_load(text)
    assert isinstance(document, dict), page
    if "prepare" in document and "name" in document:
        Pipeline.model_validate(document)
    elif "archive" in document:
        Card.model_validate(document)
    elif document.keys() <= Card.model_fields.keys():  # some sections of a card
        for name, section in document.items():
            TypeAdapter(Card.model_fields[name].annotation).validate_python(section)
    else:  # some sections of a pipeline: valid inside one that is
        whole = {"name": "page", "prepare": {"steps": []}} | (
            {"prepare": document} if "steps" in document else document
        )
        Pipeline.model_validate(whole)


def python_blocks() -> list[tuple[str, str]]:
    return [(name_of(page), block) for page in PAGES for block in blocks(page, "python", "py")]


@pytest.mark.parametrize(("page", "text"), python_blocks())
def test_python_blocks_compile_and_import_what_exists(page: str, text: str) -> None:
    compile(text, page, "exec")
    imports = re.findall(r"^(?:from|import) neuromill.*$", text, re.MULTILINE)
    exec("\n".join(imports), {})


@pytest.mark.parametrize("name", pipeline_names())
def test_pipelines_that_come_with_the_package_are_valid(name: str) -> None:
    assert load_pipeline(ROOT / "pipelines" / f"{name}.yaml").name == name


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pipelines", DOCS / "make_pipelines.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_keys_are_fresh() -> None:
    """``python docs/make_pipelines.py`` writes them."""
    make = generator()
    page = make.PAGE.read_text(encoding="utf-8")
    assert make.rendered(page) == page


def test_every_key_of_a_pipeline_file_has_a_meaning_and_no_meaning_is_left_over() -> None:
    make = generator()
    known = set()
    for path, model in make.sections():
        for name, *_, meaning in make.keys(path, model):
            assert meaning != make.MISSING, (path, name)
            known |= {f"{make.plain(path)}.{name}".lstrip("."), name}
    assert set(make.MEANINGS) <= known
