"""What the documents say is tried: code, links, commands, events."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from maildefer.event_table import EVENTS
from tests.support.documents import is_file

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [
    ROOT / "README.md",
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
README_CODE = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

TRY_HANDLER = """
from maildefer.mail import MailRequest
from maildefer.routing import Router

def mail(sender, to):
    return MailRequest("test", sender, to, "Subject: A title\\n\\nText.\\n")

Router.LOG_EXCEPTIONS = False
Router.deliver(mail("ann@example.org", "hello@osb.localhost"))
for sender, name, outcome in (("", "hello", Reject), ("ann@example.org", "later", Defer)):
    try:
        POSTING(mail(sender, f"{name}@osb.localhost"), post_name=name)
    except outcome as raised:
        print(type(raised).__name__)
"""


def run(code: str, cwd: Path) -> str:
    (cwd / "run").mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_handler_of_the_readme_does_what_its_comments_say(tmp_path: Path) -> None:
    [handler] = [code for code in README_CODE if "@route" in code]
    assert run(handler + TRY_HANDLER, tmp_path).split() == ["hello", "A", "title", "Reject", "Defer"]


def test_the_queue_of_the_readme_keeps_the_message(tmp_path: Path) -> None:
    [push] = [code for code in README_CODE if "queue.push" in code]
    assert run(push, tmp_path).endswith("is on disk\n")
    [entry] = (tmp_path / "run" / "queue" / "new").iterdir()
    assert entry.read_bytes().endswith(b"Subject: Hello\n\nIt works.\n")


def test_every_python_block_of_the_readme_is_tried() -> None:
    assert len(README_CODE) == 2


BLOCKS = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES[1:]
    if page.stem != "tutorial"  # whose blocks belong together: see test_tutorial.py
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), 1)
    if not is_file(code)  # which a reader types into a project: see test_recipes.py
]


@pytest.mark.slow
@pytest.mark.parametrize("code", BLOCKS)
def test_a_python_block_of_the_documents_runs(code: str, tmp_path: Path) -> None:
    run(code, tmp_path)


def test_the_documents_have_python_blocks() -> None:
    assert len(BLOCKS) >= 9


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https://)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def anchors(page: Path) -> set[str]:
    """As the headings of a page are linked to: small letters, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_a_section_lead_to_its_heading(page: Path) -> None:
    links = re.findall(r"\]\((?!https://)([^)#]*)#([^)]+)\)", page.read_text())
    assert [
        link for link in links if link[1] not in anchors(page.parent / link[0] if link[0] else page)
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_events_that_are_named_exist(page: Path) -> None:
    nouns = {event.partition(".")[0] for event in EVENTS}
    named = re.findall(r"`([a-z]+\.[a-z_]+)`", page.read_text())
    assert [name for name in named if name.partition(".")[0] in nouns and name not in EVENTS] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`((?:maildefer|tests|benchmarks|conf/deploy|\.ci)/[\w./-]*)[`:]", text)
    named += [
        f"maildefer/{path}"
        for path in re.findall(r"`((?:control|handling|host|intake|maildir|message|pool)/[\w/]+\.py)`", text)
    ]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:^|`)make ([a-z]+(?:-[a-z]+)*)\b", page.read_text(), re.MULTILINE))
        assert named <= targets, f"{page.name} names targets that there are not"


def test_commands_that_are_named_exist() -> None:
    from maildefer.cli.program import COMMANDS

    for page in PAGES:
        named = set(re.findall(r"`maildefer ([a-z]+)", page.read_text()))
        assert named <= set(COMMANDS), f"{page.name} names commands that there are not"


DECISIONS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
INDEX = re.findall(
    r"^\| (\d+) \| \[(.+)\]\((.+)\) \| (.+) \| (\d{4}-\d\d-\d\d) \|$",
    (ROOT / "docs/decisions/README.md").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_a_decision_is_under_a_page(page: Path) -> None:
    text = page.read_text()
    assert len(text.splitlines()) <= 60
    assert re.findall(r"^## (\w+)", text, re.MULTILINE) == ["Context", "Choice", "Rejected", "Consequences"]


def test_the_index_names_each_decision_by_number_and_title_and_no_other() -> None:
    titles = [(page.name, page.read_text().partition("\n")[0]) for page in DECISIONS]
    assert [(file, f"# {number}. {title}") for number, title, file, _, _ in INDEX] == titles
    assert [int(file[:4]) for file, _ in titles] == [int(number) for number, *_ in INDEX]
    assert len({number for number, *_ in INDEX}) == len(INDEX)


def test_numbers_that_no_decision_has_are_named_in_the_index() -> None:
    numbers = {int(page.name[:4]) for page in DECISIONS}
    [gaps] = re.findall(
        r"^Numbers that are not in use: (.+)\.$",
        (ROOT / "docs/decisions/README.md").read_text(),
        re.MULTILINE,
    )
    assert set(range(1, max(numbers) + 1)) - numbers == {int(gap) for gap in re.findall(r"\d+", gaps)}


def test_a_decision_that_another_changes_says_so_itself() -> None:
    files = {number: file for number, _, file, _, _ in INDEX}
    for _, _, file, status, _ in INDEX:
        assert re.fullmatch(r"accepted|(amended|superseded) by \[\d+\]\(\S+\)", status), file
        if status != "accepted":
            number, target = re.findall(r"\[(\d+)\]\((\S+)\)", status)[0]
            assert target == files[number], file
            told = (ROOT / "docs/decisions" / file).read_text().partition("## Context")[0]
            assert f"[{number}]({target})" in told, file
            assert status.split()[0].capitalize() in told, file


GLOSSARY = (ROOT / "docs/glossary.md").read_text()
NOT_SAID = (  # the glossary has what is said instead
    "clerk crew desk door doorman doors entrance guestbook hall nursery patience "
    "quarantine rescue shunt tender visitor visitors weather zombie zombies"
).split()


@pytest.mark.parametrize(
    "page",
    [
        page for page in PAGES if page.name not in ("glossary.md", "security.md")
    ],  # the second is still to be done
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_documents_say_it_in_the_words_of_the_field(page: Path) -> None:
    # No options, no names of tests.
    words = re.findall(r"(?<![\w.-])[a-z]+(?![\w-])", page.read_text().lower())
    assert sorted(set(words) & set(NOT_SAID)) == []


def test_each_term_of_the_glossary_is_explained_once_in_a_sentence_and_found_in_a_package() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| (`maildefer[^|]+) \| ([^|]*) ?\|$", GLOSSARY, re.MULTILINE)
    terms = [term.strip() for term, *_ in rows]
    assert len(terms) > 50
    assert len(set(terms)) == len(terms)
    for term, meaning, where, _ in rows:
        assert meaning[0].islower(), term
        assert ". " not in meaning, term
        for package in re.findall(r"`([\w.]+)`", where):
            assert (ROOT / package.replace(".", "/") / "__init__.py").is_file(), (term, package)


def test_each_transition_of_the_design_stands_on_its_first_page() -> None:
    first, _, rest = (ROOT / "docs/design.md").read_text().partition("\n## The picture\n")
    table = rest.partition("\n## Transitions\n")[2].partition("\nOnly push")[0]
    names = set(re.findall(r"^\| ([a-z]+) \|", table, re.MULTILINE)) - {"transition"}
    assert len(names) >= 11
    assert {
        name for name in names if not re.search(rf"\b{name.replace('handoff', 'hand ?off')}\b", first)
    } == set()


def test_each_mark_that_a_test_may_have_is_told_to_contributors() -> None:
    marks = re.search(r"^markers =\n((?: .*\n)+)", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert marks is not None
    declared = re.findall(r"^ +([^:\n]+):", marks[1], re.MULTILINE)
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| mark | for")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)) == sorted(declared)


def test_the_index_names_each_page_once_and_no_other() -> None:
    index = (ROOT / "docs/README.md").read_text()
    named = re.findall(r"^\| \[.+?\]\((.+?)\) \|", index, re.MULTILINE)
    pages = [path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md"]
    assert sorted(named) == sorted([*pages, "decisions/README.md"])
