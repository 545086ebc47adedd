#!/usr/bin/env bash
# Measure steps, loops, compilation, golden tests and resume on one GPU, into a folder.
#   benchmarks/accelerator.sh OUT
# Writes OUT/PART.json and OUT/PART.log for every part, OUT/table.md and OUT/results.json. A part
# whose JSON exists is skipped, so the same command goes on after an end or a failure; compiled
# programs are kept in OUT too. Without a GPU all parts run with a small model.
# PYTHON=…  interpreter with the packages of this project and of its extra `dev`, and JAX for the
#           GPU (default: .venv, which `ACCELERATOR=gpu ./run.sh test --co` installs)
# LIMIT=…   seconds, after which parts are ended (default 480)
# JOBS=…    parts at the same time (default: number of cores)
set -euo pipefail
[[ $# -eq 1 ]] || { echo "usage: $0 OUT" >&2; exit 2; }
mkdir -p "$1"
OUT=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-$PWD/.venv/bin/python}
"$PYTHON" -c 'import jax, pytest' || { echo "error: $PYTHON lacks packages: see $0" >&2; exit 2; }
END=$(($(date +%s) + ${LIMIT:-480}))
export OUT PYTHON END
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$OUT/programs}
export XLA_PYTHON_CLIENT_PREALLOCATE=false  # several processes share the device

part() {
  local left=$((END - $(date +%s)))
  if ((left <= 0)) ||
    ! timeout "$left" "$PYTHON" -m benchmarks.accelerator "$1" --out="$OUT" >>"$OUT/$1.log" 2>&1; then
    echo "$1: no result, see $OUT/$1.log"
  else
    tail -n 1 "$OUT/$1.log"
  fi
}
export -f part

mapfile -t parts < <("$PYTHON" -m benchmarks.accelerator list --out="$OUT")
part data
printf '%s\n' "${parts[@]::${#parts[@]}-1}" | xargs -P "${JOBS:-$(nproc)}" -I{} bash -c 'part {}'
part "${parts[-1]}"  # alone
"$PYTHON" -m benchmarks.accelerator table --out="$OUT"
