import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidArgument
from ingestor.selection import Selection, compile_glob, is_hidden


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        ("*.md", ["a.md", "d/e/a.md", ".md", "new\nline.md"], ["a.mdx", "md", "a.md/b"]),
        ("/*.md", ["a.md"], ["d/a.md"]),
        ("d/*.md", ["d/a.md"], ["a.md", "d/e/a.md", "x/d/a.md"]),
        ("**/*.md", ["a.md", "d/e/a.md"], ["a.txt"]),
        ("d/**", ["d/a", "d/e/f"], ["d", "dd/a", "x/d/a"]),
        ("d/", ["d/a", "x/d/e/f"], ["d"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["z", "a/bz"]),
        ("?.txt", ["a.txt", "😀.txt"], ["ab.txt", "/.txt"]),
        ("[ab].txt", ["a.txt", "b.txt"], ["c.txt"]),
        ("[!ab].txt", ["c.txt"], ["a.txt", "/.txt"]),
        ("[0-9]*", ["1", "22b"], ["b2"]),
        ("[]].txt", ["].txt"], ["[.txt"]),
        ("[x", ["[x"], ["x"]),
        ("a.b+c(d)", ["a.b+c(d)"], ["aXb+c(d)"]),
        ("a**b", ["ab", "axxb"], ["a/b"]),
    ],
)
def test_globs(glob, matching, other):
    expression = compile_glob(glob)
    assert [path for path in matching if not expression.fullmatch(path)] == []
    assert [path for path in other if expression.fullmatch(path)] == []


@pytest.mark.parametrize("glob", ["", "/", "a//b", "[z-a]"])
def test_what_is_no_glob_is_refused(glob):
    with pytest.raises(InvalidArgument, match="glob"):
        compile_glob(glob)


def test_hidden():
    hidden = [".git", "_SUCCESS", "_temporary", "a.txt._COPYING_", "_committed_123"]
    assert [name for name in hidden if not is_hidden(name)] == []
    assert [name for name in ["_index.md", "__init__.py", "a.b", "a_b"] if is_hidden(name)] == []


def test_hidden_files_and_folders_are_left_out_unless_asked_for():
    selection = Selection()
    assert not selection.admits(".a")
    assert not selection.admits(".git/config")
    assert not selection.enters("x/.git")
    assert Selection(hidden=True).admits(".git/config")


def test_excludes_win_and_prune_folders():
    selection = Selection(include=["*.md"], exclude=["drafts", "old/**", "*.tmp.md"])
    assert selection.admits("a/b.md")
    assert not selection.admits("a/b.txt")
    assert not selection.admits("x/drafts/b.md")
    assert not selection.enters("x/drafts")
    assert not selection.enters("old")
    assert not selection.enters("old/deeper")
    assert selection.enters("x/old")
    assert selection.admits("x/old/a.md")
    assert not selection.admits("a.tmp.md")


def test_an_exclude_of_files_prunes_no_folder():
    selection = Selection(exclude=["d/*.md", "**/*.log"])
    assert selection.enters("d")
    assert selection.admits("d/a.txt")
    assert not selection.admits("d/a.md")
    assert not selection.admits("a.log")


names = st.sampled_from(
    ["a", ".a", "_SUCCESS", "_a", "a_", "x._COPYING_", "n\n.b", "n\nb", "_logs"]
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


@given(st.lists(paths, max_size=4))
def test_what_is_taken_at_a_glance_is_taken_one_by_one(listed):
    selection = Selection()
    if selection.admits_all(listed):
        assert [path for path in listed if not selection.admits(path)] == []
    assert Selection(hidden=True).admits_all(listed)


def test_a_glance_suffices_for_plain_names_and_for_no_globs():
    assert Selection().admits_all(["a/b_c.d", "e"])
    assert not Selection(include=["*"]).admits_all(["a"])
    assert not Selection(exclude=["b"]).admits_all(["a"])
