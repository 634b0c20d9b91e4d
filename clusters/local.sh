#!/usr/bin/env bash
# This machine as a cluster: a Ray head with dashboard and job server, on loopback only.
#
#     clusters/local.sh -- python -m cbdm_scale.train --dataset digits_lt
#     clusters/local.sh stop
#
# The first starts the head unless it is there, and submits the command as a job (submit.sh).
# Nothing but this machine can reach the head, and on it only who knows the token.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
port=${CBDM_PORT:-6379}
dashboard=${CBDM_DASHBOARD_PORT:-8265}
state=${CBDM_LOCAL:-${TMPDIR:-/tmp}/cbdm_scale-$(id -u)/local-$port}

export RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 # or Ray puts this host's address for loopback
export RAY_JOB_STOP_WAIT_TIME_S=120        # how long a stopped job may take to save
export RAY_API_SERVER_ADDRESS=http://127.0.0.1:$dashboard

alive() {
    [ -f "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null
}

stop() {
    if ! alive; then
        echo "no head of $0 runs on port $port"
        return
    fi
    local pid
    pid=$(cat "$state/pid")
    kill -TERM "$pid" # `ray start --block` takes its processes with it, and no other's
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
    done
    rm -f "$state/pid"
    echo "the head on port $port is stopped"
}

start() {
    (umask 077 && mkdir -p "$state")
    if [ -z "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ]; then
        ray get-auth-token --generate >/dev/null # to ~/.ray/auth_token, kept if it is there
        chmod 600 "$HOME/.ray/auth_token"
    fi
    # CBDM_START_OPTIONS: more of `ray start`, such as --num-cpus=2 or other ports.
    # shellcheck disable=SC2086
    nohup ray start --head --block --node-ip-address=127.0.0.1 --port="$port" \
        --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" ${CBDM_START_OPTIONS:-} \
        >"$state/log" 2>&1 &
    echo $! >"$state/pid"
    for _ in $(seq 150); do
        if ray job list >/dev/null 2>&1; then
            echo "head on 127.0.0.1:$port, dashboard and jobs on $RAY_API_SERVER_ADDRESS"
            echo "dashboard's token: ray get-auth-token"
            return
        fi
        alive || break
        sleep 0.5
    done
    tail -n 20 "$state/log" >&2
    echo "the head did not start: $state/log" >&2
    return 1
}

case ${1:-} in
stop)
    stop
    ;;
-- | --id)
    alive || start
    "$here/submit.sh" "$@"
    ;;
*)
    echo "usage: $0 [--id ID] -- COMMAND ...   or   $0 stop" >&2
    exit 2
    ;;
esac
