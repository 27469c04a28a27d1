"""The pages: their programs run and print what they say, and what they point to exists."""

import contextlib
import importlib.util
import io
import re
import runpy
import shlex
from pathlib import Path

import pytest

from lsc_ext.cli import main

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "csrc" / "README.md", *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FOLDERS = (".ci", "bench", "csrc", "docs", "examples", "python", "tests")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
# Commands that need data of another package, or more than a few seconds.
NOT_RUN = re.compile(r"lsc_ext (demo|bench|experiments [a-z])|--data|--plot")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and content of every fenced block."""
    return re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def difference(printed: str, shown: str) -> str | None:
    """What differs; a number may be off by one in its last shown digit, since instruction sets round differently."""
    found, expected = (" ".join(text.split()) for text in (printed, shown))
    if NUMBER.sub("#", found) != NUMBER.sub("#", expected):
        return f"printed:\n{printed}\nshown:\n{shown}"
    for a, b in zip(NUMBER.findall(found), NUMBER.findall(expected), strict=True):
        mantissa, _, exponent = b.partition("e")
        unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        if abs(float(a) - float(b)) > 1.01 * unit:
            return f"printed {a}, shown {b}, in:\n{printed}"
    return None


def run_block(code: str, namespace: dict[str, object], name: str) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, name, "exec"), namespace)
    return output.getvalue()


PROGRAMS = [page for page in PAGES if any(language == "python" for language, _ in blocks(page))]


@pytest.mark.parametrize("page", PROGRAMS, ids=name_of)
def test_programs_print_what_the_page_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed: str | None = None
    for number, (language, content) in enumerate(blocks(page)):
        if language == "python":
            printed = run_block(content, namespace, f"{name_of(page)}, block {number}")
        elif language == "text" and printed is not None:
            wrong = difference(printed, content)
            assert wrong is None, wrong
            printed = None
        else:
            printed = None


def commands() -> list[str]:
    lines = [
        line for page in PAGES for kind, text in blocks(page) if kind in ("console", "sh") for line in text.split("\n")
    ]
    found = {line.removeprefix("$ ").partition("  #")[0].strip() for line in lines}
    return sorted(line for line in found if line.startswith("python -m lsc_ext") and not NOT_RUN.search(line))


@pytest.mark.parametrize("command", commands())
def test_commands_succeed(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(shlex.split(command)[3:]) == 0
    assert output.getvalue().strip()


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_examples_run_and_print(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(example.read_text().splitlines()) < 40
    with contextlib.redirect_stdout(io.StringIO()) as output:
        runpy.run_path(str(example), run_name="__main__")
    assert output.getvalue().strip()


def anchors(page: Path) -> set[str]:
    """Names of a page's headings as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_pages_name_exist(page: Path) -> None:
    """In backticks and in this repository; bench/results is written by `make bench`."""
    named = re.findall(r"`([\w.]+/[\w./-]*[\w/])`", prose(page))
    ours = {path for path in named if path.split("/")[0] in FOLDERS and not path.startswith("bench/results/")}
    assert not [path for path in sorted(ours) if not (ROOT / path).exists()]


def test_pages_that_sources_name_exist() -> None:
    """A comment may say docs/design/0003 for the page that begins with this number."""
    folders = (ROOT / folder for folder in ("python", "csrc", "tests", "bench", "examples"))
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".h", ".cpp", ".in")]
    wrong = []
    for file in files:
        for page in re.findall(r"\bdocs/[\w/.-]*\w", file.read_text()):
            if not (ROOT / page).exists() and not list(ROOT.glob(f"{page}-*.md")):
                wrong.append(f"{name_of(file)}: {page}")
    assert not wrong


def test_make_targets_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        text = page.read_text()
        named = set(re.findall(r"`make ([a-z][\w-]*)`", text)) | set(
            re.findall(r"^make ([a-z][\w-]*)", text, re.MULTILINE)
        )
        assert named <= targets, name_of(page)


def test_the_readme_is_short() -> None:
    """Without the generated table, a line for each architecture."""
    text = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(text.splitlines()) < 200


def test_public_names_that_the_readme_uses_exist() -> None:
    assert importlib.util.find_spec("lsc_ext") is not None
    import lsc_ext

    named = set(re.findall(r"`lsc\.(\w+)", (ROOT / "README.md").read_text()))
    assert [name for name in sorted(named) if not hasattr(lsc_ext, name)] == []


@pytest.mark.parametrize(
    ("printed", "shown", "same"),
    [
        ("radius 0.123", "radius 0.123\n", True),
        ("radius 0.124", "radius 0.123", True),
        ("radius 0.126", "radius 0.123", False),
        ("radius 3.1e-05", "radius 3.0e-05", True),
        ("radius 3.1e-04", "radius 3.0e-05", False),
        ("a radius", "radius", False),
        ("-1.50  x", "1.50 x", False),
    ],
)
def test_a_difference_is_seen(printed: str, shown: str, same: bool) -> None:
    assert (difference(printed, shown) is None) == same
