#!/usr/bin/env bash
# Makes .venv from uv.lock: bootstraps a pinned uv, syncs every member, adds the compiled llama.cpp.
# With the argument `lock` it makes uv.lock anew instead. Safe to run again and from two shells.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly UV_VERSION=0.13.8
readonly TOOLS=.tools

say() { printf '== %s\n' "$*" >&2; }

# Prints the first interpreter that is new enough; 3.11 first, because it is the one tests run on.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3.14 python3; do
    [[ -n "$candidate" ]] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  return 1
}

missing=()
python=$(find_python) || missing+=(python3)
if [[ -z "$python" ]] || ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  missing+=(python3-venv)
fi
command -v git >/dev/null || missing+=(git)
command -v c++ >/dev/null && command -v cc >/dev/null || missing+=(build-essential)
if ((${#missing[@]})); then
  echo "Backplane needs these first (Python 3.11 or newer):" >&2
  echo "    sudo apt-get install -y ${missing[*]}" >&2
  exit 1
fi

mkdir -p "$TOOLS"
exec 9>"$TOOLS/.lock"
flock -n 9 || { say "another installation is running here; waiting for it"; flock 9; }

uv=$TOOLS/bin/uv
if [[ "$("$uv" --version 2>/dev/null)" != "uv $UV_VERSION"* ]]; then
  say "bootstrapping uv $UV_VERSION into $TOOLS"
  "$python" -m venv --clear "$TOOLS/venv"
  "$TOOLS/venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
  mkdir -p "$TOOLS/bin"
  ln -sf ../venv/bin/uv "$uv"
fi

# The lock decides what is installed; an index set up for other projects must not.
unset UV_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL UV_FIND_LINKS
export UV_PYTHON_DOWNLOADS=never

if [[ "${1:-}" == lock ]]; then
  exec "$uv" lock --python "$python"
fi

# Compiled before the sync, so that the members are never there without it for the minutes of a build.
say "llama.cpp bindings"
wheel=$("$TOOLS/venv/bin/python" scripts/llama_cpp_wheel.py)

say "syncing .venv from uv.lock ($("$python" --version))"
# Inexact: PyTorch, which pip brings (`make install-torch`), stays.
"$uv" sync --frozen --inexact --all-packages --python "$python" --no-install-package llama-cpp-python
"$uv" pip install --python .venv/bin/python --no-deps "$wheel"
departed=$(.venv/bin/python scripts/departed_members.py)
# shellcheck disable=SC2086 # names, one word each
[[ -z "$departed" ]] || "$uv" pip uninstall --python .venv/bin/python $departed
# The sync builds a member anew when its metadata has changed, not when its C has.
for compiles in backends/*/hatch_build.py; do
  .venv/bin/python "$compiles" || true # it says why, and the backend does without
done
say "ready: .venv/bin/backplane"
