# Sourced by the other scripts: goes to the repository's root and makes .venv with the tested versions, once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mfg-envs needs Python 3.11 or later; set PYTHON=/path/to/it" >&2; exit 1; }
stamp=.venv/installed
if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ constraints.txt -nt "$stamp" ]; then
  "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[solvers,render,dev]'
  touch "$stamp"
fi
