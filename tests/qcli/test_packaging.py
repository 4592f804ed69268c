"""What ships: declared needs, the embedded model with its credits, a README whose commands CI types."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from places import ROOT
from source_tree import imports, sources

import qcli
from qcli.catalog.entries import load_catalog

IMPORTED_AS = {"markdown-it-py": "markdown_it"}
ASSETS = ROOT / "qcli" / "assets"
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        return tomllib.load(file)


def imported() -> set[str]:
    """Top-level names that qcli and quant import, anywhere in their files."""
    return {name.partition(".")[0] for path in (*sources("qcli"), *sources("quant")) for name in imports(path)}


def test_every_import_is_declared(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    needs = [*project["project"]["dependencies"], *extras["mcp"], *extras["ray"], *extras["serve"]]
    declared = {re.split(r"[\[<>=]", need)[0] for need in needs}
    known = {IMPORTED_AS.get(package, package) for package in declared}
    assert imported() - sys.stdlib_module_names - {"qcli", "quant"} <= known


def test_one_version(project: dict[str, Any]) -> None:
    assert project["project"]["version"] == qcli.__version__


def test_the_wheel_takes_the_catalog_along(project: dict[str, Any]) -> None:
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["qcli", "quant"]
    assert wheel["force-include"] == {"models.toml": "qcli/models.toml"}


def test_the_script_begins_where_ctrl_c_is_heard_first(project: dict[str, Any]) -> None:
    assert project["project"]["scripts"] == {"qcli": "qcli.__main__:main"}
    code = "import sys; before = {*sys.modules}; import qcli.__main__; print(*{*sys.modules} - before)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert set(loaded) - {"__future__", "runpy"} == {"qcli", "qcli.__main__"}


def test_the_embedded_model_is_the_one_in_the_catalog() -> None:
    entry = load_catalog()["storyteller"]
    data = (ASSETS / entry.asset).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.bytes, entry.sha256)


def test_card_and_credits_ship_with_the_weights() -> None:
    assert "CDLA-Sharing-1.0" in (ASSETS / "storyteller.md").read_text("utf-8")
    assert "TinyStories" in (ASSETS / "storyteller-DATA.md").read_text("utf-8")
    credits = (ASSETS / "ATTRIBUTION_cc_by_stories.tsv").read_text("utf-8").splitlines()
    assert credits[0].split("\t") == ["source", "file", "title", "text_credit", "licence"]
    assert len(credits) == 1 + 671


def test_the_licence_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License\n" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_readme_opens_with_the_two_commands_that_ci_runs() -> None:
    first, second = re.findall(r"^```sh\n(.*?)```$", README, re.DOTALL | re.MULTILINE)[:2]
    assert first.count("\n") == second.count("\n") == 1
    assert "pip install ." in first
    assert "qcli run " in first
    assert "pip install -e '.[test]'" in second
    assert second.endswith("-m pytest\n")
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "README.md" in ci
    assert "[test]" not in ci


def test_nobody_is_told_to_install_what_others_have_published_as_qcli() -> None:
    """PyPI has another project of this name: `pip install -U qcli` would put its code in the place of this."""
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "qcli").rglob("*.py")]
    telling = re.compile(r"\binstall (-\S+ )*['\"]?qcli\b")
    found = {path.name for path in texts if telling.search(path.read_text("utf-8"))}
    assert found == set()


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_pages_name_files_that_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / target).exists(), target
    for path in re.findall(r"`((?:qcli|quant|tests|docs|benchmarks)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 220


def test_ci_and_pre_commit_run_the_same_checks() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert re.findall(r"entry: (.*)", hooks) == ["ruff format --check .", "ruff check .", "mypy"]
    assert ".pre-commit-config.yaml" in (ROOT / ".ci" / "run").read_text("utf-8")
