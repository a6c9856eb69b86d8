#!/usr/bin/env bash
# Solve the linear-quadratic game by DEDA-FP; arguments go to the solver: scripts/solve.sh --seed 2
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec .venv/bin/python solvers/dedafp_ppo.py "$@"
