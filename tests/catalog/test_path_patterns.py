import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.catalog.path_patterns import PLACEHOLDERS, check_path_pattern, glob_match, match_path
from neuromill.records import Entities


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.fif", "a/b/c.fif", True),  # no slash: the name alone
        ("*.fif", "a/b/c.fif.gz", False),
        ("a/*.fif", "a/b/c.fif", False),  # a star stays in one folder
        ("a/*/c.fif", "a/b/c.fif", True),
        ("**/c.fif", "c.fif", True),
        ("**/c.fif", "a/b/c.fif", True),
        ("a/**/c.fif", "a/c.fif", True),
        ("a/**", "a/b/c.fif", True),
        ("a/?/c.fif", "a/b/c.fif", True),
        ("a/?/c.fif", "a/bb/c.fif", False),
        ("a+(b).fif", "a+(b).fif", True),  # no regular expression
        ("a.fif", "axfif", False),
        ("*.FIF", "c.fif", False),
    ],
)
def test_glob(pattern: str, path: str, *, expected: bool) -> None:
    assert glob_match(pattern, path) is expected


@pytest.mark.parametrize(
    ("pattern", "path", "entities"),
    [
        ("{subject}_{session}.mat", "Chewie_20131003.mat", Entities(subject="Chewie", session="20131003")),
        ("{subject}_{session}.mat", "a/b/Chewie_20131003.mat", Entities(subject="Chewie", session="20131003")),
        ("{subject}_{session}.mat", "Chewie.mat", None),
        ("{subject}_{session}.mat", "Chewie_a_b.mat", None),
        ("{subject}_{session}.mat", "Chewie_1.MAT", None),
        ("{subject}_{session}.mat", "x-y_1.mat", None),
        ("{subject}.mat", "a.b+c.mat", Entities(subject="a.b+c")),
        ("**/{subject}_{session}_{run}.mat", "indy_20160407_02.mat", Entities("indy", "20160407", run="02")),
        ("**/{subject}_{session}_{run}.mat", "x/y/indy_20160407_02.mat", Entities("indy", "20160407", run="02")),
        (  # TUAB: the label is a folder, the subject part of the file name
            "edf/*/{task}/*/{subject}_{session}_{run}.edf", "edf/train/abnormal/01_tcp_ar/aaaaaamm_s001_t000.edf",
            Entities("aaaaaamm", "s001", task="abnormal", run="t000"),
        ),
        (  # TUEG: subject and session stand twice, and must agree
            "edf/*/{subject}/{session}_*/*/{subject}_{session}_{run}.edf",
            "edf/000/aaaaaaaa/s001_2015_12_30/01_tcp_ar/aaaaaaaa_s001_t000.edf",
            Entities("aaaaaaaa", "s001", run="t000"),
        ),
        (
            "edf/*/{subject}/{session}_*/*/{subject}_{session}_{run}.edf",
            "edf/000/aaaaaaab/s001_2015_12_30/01_tcp_ar/aaaaaaaa_s001_t000.edf", None,
        ),
        ("{subject}(1).mat", "a(1).mat", Entities(subject="a")),  # what is no placeholder stands for itself
        ("{subject}.mat", "a1mat", None),
        ("{subject}.mat", "...mat", None),  # ".." is no label
        ("{subject}.mat", "+.mat", None),
        ("sub-{subject}/*/{subject}.mat", "sub-../x/...mat", None),
        ("{subject}_{run}.edf", "1_\n2.edf", None),
        ("?{subject}.edf", "x12.edf", Entities(subject="12")),
        ("**/{subject}.edf", "12.edf", Entities(subject="12")),
    ],
)  # fmt: skip
def test_a_path_gives_its_entities_or_nothing(pattern: str, path: str, entities: Entities | None) -> None:
    assert match_path(check_path_pattern(pattern), path) == entities


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("{sub}.mat", "{sub} is no entity"),
        ("{split}_{subject}.mat", "{split} is no entity"),
        ("*.mat", "needs a placeholder"),
        ("{subject}_{.mat", "no partner"),
        ("subject}{session}.mat", "no partner"),
        ("{{subject}}.mat", "no partner"),
        ("{}.mat", "{} is no entity"),
        ("*{subject}.edf", "touches another one, or a *"),  # x12.edf would be subject 2
        ("{subject}*.edf", "touches another one, or a *"),
        ("{subject}**/x.edf", "touches another one, or a *"),
        ("{subject}{run}.edf", "touches another one, or a *"),  # 12.edf would be subject 1, run 2
        ("/{subject}.mat", "no file can match"),
        ("../{subject}.mat", "no file can match"),
        ("a//{subject}.mat", "no file can match"),
        ("a\\{subject}.mat", "no file can match"),
    ],
)
def test_a_wrong_pattern_says_what_is_wrong(pattern: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        check_path_pattern(pattern)


def test_no_pattern_is_one() -> None:
    assert check_path_pattern("") == ""


labels = st.text("abcXYZ019+.", min_size=1, max_size=8).filter(lambda label: any(c.isalnum() for c in label))


@given(st.dictionaries(st.sampled_from(PLACEHOLDERS), labels, min_size=1), st.sampled_from(["", "a/", "a/b/"]))
def test_what_a_pattern_writes_it_reads(entities: dict[str, str], folder: str) -> None:
    pattern = "**/" + "_".join(f"{{{name}}}" for name in entities) + ".edf"
    path = folder + "_".join(entities.values()) + ".edf"
    assert match_path(pattern, path) == Entities(**entities)
