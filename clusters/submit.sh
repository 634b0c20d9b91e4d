#!/usr/bin/env bash
# Send a command to a Ray cluster as a job, follow it, and exit with how the job ended:
# 0 succeeded, 1 failed, 3 stopped. `ray job submit` alone exits 0 for a stopped job.
#
#     clusters/submit.sh [--id ID] -- python -m cbdm_scale.train --dataset digits_lt
#
# RAY_API_SERVER_ADDRESS says where (http://127.0.0.1:8265 without it). Ctrl-C ends the
# following, not the job: `ray job stop ID` does that.
set -euo pipefail

id="cbdm-$(date +%Y%m%d-%H%M%S)-$$"
if [ "${1:-}" = --id ]; then
    id=$2
    shift 2
fi
if [ "${1:-}" != -- ] || [ $# -lt 2 ]; then
    echo "usage: $0 [--id ID] -- COMMAND ..." >&2
    exit 2
fi
shift

export RAY_API_SERVER_ADDRESS="${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}"
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
cd "$(dirname "$0")/.." # what is uploaded: this clone, without what .rayignore names

ray job submit --submission-id "$id" --working-dir . -- "$@" || true

# The stream of the log may break while the job goes on: ask until there is an end.
while true; do
    said=$(ray job status "$id" 2>&1) || true
    case $said in
    *"Job '$id' succeeded"*) exit 0 ;;
    *"Job '$id' failed"*) exit 1 ;;
    *"Job '$id' was stopped"*)
        echo "job $id was stopped; the same command goes on from its newest checkpoint" >&2
        exit 3
        ;;
    *"Status for job '$id':"*) sleep 5 ;; # pending or running
    *)
        echo "$said" >&2
        echo "$RAY_API_SERVER_ADDRESS does not say how job $id is: ray job status $id" >&2
        exit 1
        ;;
    esac
done
