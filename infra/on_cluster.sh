#!/bin/bash
# Runs a command where it can drive the Ray cluster at $RAY_ADDRESS; without one, just runs it.
#
# Ray wants a driver to run on one of the cluster's nodes. A machine that is none joins as a node
# without processors, and leaves when the command ends. Should that node be lost, the command is
# ended too: whoever started this starts it again, and the run goes on with what is missing.
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
    wait $! || true  # a signal ends the wait, and the trap has passed it on
done

status=0
wait "$command" || status=$?
ray stop --force >/dev/null 2>&1 || true
if $lost; then exit 1; fi
exit "$status"
