#!/bin/bash
# Resolves pyproject.toml into requirements.lock (what runs) and requirements-dev.lock (what runs, builds and tests), with hashes.
# What is locked already stays at its version; UPGRADE=--upgrade takes the newest of everything.
set -eu
cd "$(dirname "$0")/.."
export CUSTOM_COMPILE_COMMAND="make lock"
compile() {
  .venv/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links \
    --no-emit-trusted-host ${UPGRADE:+"$UPGRADE"} "$@" pyproject.toml
}
compile --output-file requirements.lock
compile --extra dev --constraint requirements.lock --output-file requirements-dev.lock
