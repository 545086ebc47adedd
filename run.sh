#!/usr/bin/env bash
# Install what is missing into .venv, then run the default, the tests, or an experiment.
#   ./run.sh                             simulate a dataset and pretrain `tiny` on it
#   ./run.sh test [pytest arguments]     lint, types, tests
#   ./run.sh --config=… --workdir=…      train
# PYTHON=…       interpreter for .venv, 3.11 or newer
# ACCELERATOR=…  cpu, gpu or tpu (default: detected)
# GLIBC_TUNABLES=…  settings of the C library (default: large pages for the heap; empty: none)
# EXTRAS=…       further extras to install, such as tensorflow (for the command `tfds build`)
# Relative paths are relative to this folder.
set -euo pipefail
[[ -n "${GOLDEN:-}" ]] && GOLDEN=$(realpath "$GOLDEN") && export GOLDEN
cd "$(dirname "${BASH_SOURCE[0]}")"
unset PYTHONHOME
# Large pages for the heap, which save a sixth of a step's time on CPU (docs/results.md).
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}

fail() {
  echo "error: $*" >&2
  exit 2
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "found no Python 3.11 or newer${PYTHON:+ at PYTHON=$PYTHON}: install one, or name it as PYTHON=/path/to/python"
}

version_of() {
  "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null
}

# Create .venv, or recreate it if it is broken or of another Python than PYTHON names.
make_environment() {
  local python
  if .venv/bin/python -m pip --version >/dev/null 2>&1; then
    [[ -z "${PYTHON:-}" || "$(version_of .venv/bin/python)" == "$(version_of "$PYTHON")" ]] && return
  fi
  python=$(find_python)
  rm -rf .venv
  echo "making .venv with Python $(version_of "$python")"
  "$python" -m venv .venv || {
    rm -rf .venv
    fail "$python cannot make virtual environments: install its venv module, or choose another Python with PYTHON="
  }
}

# Test for TPUs among the PCI devices of Google, which makes network cards too.
has_tpu() {
  local device
  for device in /sys/bus/pci/devices/*; do
    [[ "$(cat "$device/vendor" 2>/dev/null)" == 0x1ae0 ]] || continue
    case "$(cat "$device/device")" in
      0x0027 | 0x0056 | 0x005e | 0x0062 | 0x0063 | 0x006f | 0x0076) return 0 ;;
    esac
  done
  return 1
}

find_accelerator() {
  if [[ -n "${ACCELERATOR:-}" ]]; then
    case "$ACCELERATOR" in
      cpu | gpu | tpu) echo "$ACCELERATOR" ;;
      *) fail "ACCELERATOR is $ACCELERATOR: expected cpu, gpu or tpu" ;;
    esac
  elif nvidia-smi >/dev/null 2>&1; then
    echo gpu
  elif has_tpu; then
    echo tpu
  else
    echo cpu
  fi
}

# install [dev]: install unless the same versions were installed before.
install() {
  local accelerator extras stamp wanted
  accelerator=$(find_accelerator)
  extras=$accelerator${1:+,$1}${EXTRAS:+,$EXTRAS}
  make_environment
  stamp=.venv/installed-$extras
  wanted=$(cat pyproject.toml constraints.txt | cksum)
  [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && return
  echo "installing for $extras (about a minute)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable ".[$extras]" ||
    fail "pip could not install for $extras: see above; ACCELERATOR=cpu installs without an accelerator"
  if [[ $accelerator != cpu ]] &&
    ! .venv/bin/python -c 'import sys, jax; sys.exit(jax.default_backend() == "cpu")'; then
    fail "JAX finds no $accelerator: check the driver, or set ACCELERATOR=cpu"
  fi
  echo "$wanted" | tee "$stamp" >".venv/installed-$accelerator"
}

# Install the CPU build of PyTorch for the tests of conversion, which are skipped without it.
install_torch() {
  .venv/bin/python -c 'import safetensors, torch' 2>/dev/null && return
  echo "installing PyTorch for tests"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
    torch==2.13.0+cpu safetensors ||
    echo "PyTorch's CPU build cannot be installed here: tests that need it are skipped"
}

case "${1:-}" in
  test)
    shift
    install dev
    install_torch
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy
    [[ $# -eq 0 ]] && set -- --numprocesses=3 --dist=loadfile --no-loadscope-reorder
    JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} .venv/bin/python -m pytest "$@"
    ;;
  '')
    install
    .venv/bin/python -m tfds_builders.build synthetic_s1 --data_dir=data
    exec .venv/bin/python -m sar_mixmae_jax.main --config=configs/synthetic.py --workdir=runs/synthetic
    ;;
  *)
    install
    exec .venv/bin/python -m sar_mixmae_jax.main "$@"
    ;;
esac
