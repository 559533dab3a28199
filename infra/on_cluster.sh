#!/bin/bash
# Runs a command on a node of the Ray cluster at $RAY_ADDRESS; without that, simply runs it.
#
# Ray requires a driver to run on a node of its cluster. A machine that is not a node joins as one
# without processors, and leaves when the command ends. If that node is lost, the command is ended
# with exit code 1: starting it again resumes the run with the rows that are missing.
set -euo pipefail

node_lives() {
    grep -sqx raylet /proc/[0-9]*/comm
}

if [[ -z ${RAY_ADDRESS:-} ]] || node_lives; then
    exec "$@"
fi

ray start --address="$RAY_ADDRESS" --num-cpus=0 --num-gpus=0 --metrics-export-port=8080 \
    --disable-usage-stats >&2

"$@" &
command=$!
trap 'kill -TERM "$command" 2>/dev/null || true' TERM INT
lost=false
while kill -0 "$command" 2>/dev/null; do
    if ! $lost && ! node_lives; then
        echo "on_cluster.sh: lost this node of the Ray cluster at $RAY_ADDRESS" >&2
        lost=true
        kill -TERM "$command"
    fi
    sleep 2 &
    wait $! || true  # a signal ends the wait; the trap has passed it to the command
done

status=0
wait "$command" || status=$?
ray stop --force >/dev/null 2>&1 || true
if $lost; then exit 1; fi
exit "$status"
