#!/usr/bin/env bash
# Lint, format, types, tests on all cores; arguments go to pytest: scripts/test.sh -m slow
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
.venv/bin/ruff check
.venv/bin/ruff format --check
.venv/bin/mypy
OMP_NUM_THREADS=1 exec .venv/bin/python -m pytest -W error --numprocesses auto "$@"
