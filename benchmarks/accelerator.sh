#!/usr/bin/env bash
# Measure steps, loops, compilation, golden tests and resume on one GPU, into a folder.
#   benchmarks/accelerator.sh OUT
# Writes OUT/PART.json and OUT/PART.log for every part, OUT/table.md and OUT/results.json. A part
# whose JSON exists is skipped, so the same command goes on after an end or a failure; compiled
# programs are kept in OUT too. Without a GPU all parts run with a small model.
# PYTHON=…  interpreter with the packages of this project and of its extra `dev`, and JAX for the
#           GPU (default: .venv, which `ACCELERATOR=gpu ./run.sh test --co` installs)
# LIMIT=…   seconds, after which parts are ended (default 480)
# JOBS=…    parts that compile at the same time, before each is timed alone (default: half of the
#           cores); the most important ones come first
set -euo pipefail
[[ $# -eq 1 ]] || { echo "usage: $0 OUT" >&2; exit 2; }
mkdir -p "$1"
OUT=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-$PWD/.venv/bin/python}
"$PYTHON" -c 'import jax, pytest' || { echo "error: $PYTHON lacks packages: see $0" >&2; exit 2; }
END=$(($(date +%s) + ${LIMIT:-480}))
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

mapfile -t parts < <("$PYTHON" -m benchmarks.accelerator list --out="$OUT")
JOBS=${JOBS:-$((($(nproc) + 1) / 2))}
part data
part "${parts[0]}"
for ((first = 1; first < ${#parts[@]} - 1; first += JOBS)); do
  for name in "${parts[@]:first:JOBS}"; do
    [[ $name == "${parts[-1]}" ]] || part "$name" &
  done
  wait
done
part "${parts[-1]}"
"$PYTHON" -m benchmarks.accelerator table --out="$OUT"
