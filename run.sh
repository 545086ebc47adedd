#!/usr/bin/env bash
# Installs into .venv what is missing, and runs: the embedded default, the tests, or an experiment.
#   ./run.sh                             simulate a dataset and pretrain `tiny` on it
#   ./run.sh test [pytest arguments]     lint, types, tests
#   ./run.sh --config=… --workdir=…      python -m sar_mixmae_jax.main
# PYTHON=… chooses the interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: found no Python 3.11 or newer${PYTHON:+ at PYTHON=$PYTHON}: install one, or name it as PYTHON=/path/to/python" >&2
  return 2
}

# The accelerator of this machine, as an extra of pyproject.toml; nothing for CPU.
accelerator() {
  if nvidia-smi >/dev/null 2>&1; then
    echo gpu
  elif [[ -n "${TPU_NAME:-}" ]] || compgen -G '/dev/accel*' >/dev/null; then
    echo tpu
  fi
}

# install EXTRA…: installs unless exactly this was installed before.
install() {
  local extras stamp wanted
  extras=$(IFS=,; echo "$*")
  stamp=.venv/installed-${extras:-cpu}
  wanted=$(cat pyproject.toml constraints.txt | cksum)
  [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && return
  if [[ ! -x .venv/bin/python ]]; then
    local python
    python=$(find_python)
    echo "making .venv with $("$python" --version)"
    "$python" -m venv .venv || {
      rm -rf .venv
      echo "error: $python cannot make virtual environments: install its venv and pip modules, or choose another with PYTHON=" >&2
      return 2
    }
  fi
  echo "installing${extras:+ with extras $extras} (about a minute)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable ".${extras:+[$extras]}"
  echo "$wanted" > "$stamp"
}

run_tests() {
  .venv/bin/ruff check .
  .venv/bin/ruff format --check .
  .venv/bin/mypy
  JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} .venv/bin/python -m pytest "$@"
}

case "${1:-}" in
  test)
    shift
    # shellcheck disable=SC2046
    install $(accelerator) dev
    run_tests "$@"
    ;;
  '')
    # shellcheck disable=SC2046
    install $(accelerator)
    .venv/bin/python -m tfds_builders.build synthetic_s1 --data_dir=data
    exec .venv/bin/python -m sar_mixmae_jax.main --config=configs/synthetic.py --workdir=runs/synthetic
    ;;
  *)
    # shellcheck disable=SC2046
    install $(accelerator)
    exec .venv/bin/python -m sar_mixmae_jax.main "$@"
    ;;
esac
