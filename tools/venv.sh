#!/bin/bash
# Makes .venv from requirements-dev.lock (every file checked by its hash) with outgate itself installed editable.
#
#   tools/venv.sh STAMP
#
# Runs one at a time: whoever waited for another run finds the stamp newer than the lock and does nothing. Nothing outside
# .venv changes. $PYTHON says which interpreter makes it.
set -eu
cd "$(dirname "$0")/.."
stamp=$1
python=${PYTHON:-python3}
mkdir -p build
exec 9> build/venv.lock
flock 9 || exit 1
if [ "$stamp" -nt requirements-dev.lock ] && [ "$stamp" -nt pyproject.toml ]; then exit 0; fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "setup: $python is $("$python" --version 2>&1); outgate needs 3.11 or later (name another: make PYTHON=python3.12 ...)" >&2
  exit 1
fi
echo "setup: installing into .venv: the $(grep -c == requirements-dev.lock) packages of requirements-dev.lock, and outgate itself (editable)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
touch "$stamp"
