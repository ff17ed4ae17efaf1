#!/usr/bin/env bash
# Checks format, lint, types, spelling, shell scripts and the Dockerfile, for run_tests.sh and pre-commit; changes nothing.
# PYTHON chooses the interpreter (default: python), whose environment has the tools of requirements/lint.txt.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}
"$python" -m ruff format --check .
"$python" -m ruff check .
"$python" -m mypy sspyr_mm
"$python" -m codespell_lib
programs=$(dirname "$(command -v "$python")")
"$programs/shellcheck" .ci/run tools/*.sh tools/*/*.sh
"$programs/hadolint" docker/Dockerfile
