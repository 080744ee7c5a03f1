#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.10.14"]
# ///
"""The Makefile's checks, each in a fresh environment: ``nox``, or ``nox -s tests-3.13``."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"

PYPROJECT = nox.project.load_toml("pyproject.toml")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and the repository itself."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("repo-review", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package."""
    session.install("--editable", ".", *nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("mypy")


@nox.session(python=nox.project.python_versions(PYPROJECT))
def tests(session: nox.Session) -> None:
    """Run every test and every example in a docstring; against torch and scikit-learn too."""
    session.install("--editable", ".[test,torch,sklearn]")
    session.run("pytest", *session.posargs, env={"MATBACKPROP_REQUIRE": "torch,sklearn"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site: every cell run, every warning an error."""
    session.install("--editable", ".[docs]")
    session.run("python", "-m", "sphinx", "-q", "-n", "-W", "--keep-going", "-E", "docs", "docs/_build/html")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel and run the tests against it, out of sight of the checkout."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "build"))
    away = Path(session.create_tmp())
    for stale in ("dist", "tests"):
        shutil.rmtree(away / stale, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(away / "dist"), ".")
    session.install(f"{next((away / 'dist').glob('*.whl'))}[test]")
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(name, away)
    shutil.copytree("tests", away / "tests")
    session.chdir(away)
    session.run("pytest", *session.posargs, "--pyargs", "tests", "matbackprop")


if __name__ == "__main__":
    nox.main()
