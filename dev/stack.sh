# Sourced by the scripts of this folder: ports, and the life of a server from start to stop.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/.dev/tools
# Of another version where dev/matrix says so, under names that nobody has set for something else.
kafka_version=${STACK_KAFKA_VERSION:-$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$root/dev/pom.xml")}
kafka_jars=$tools/kafka-$kafka_version

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# That of dev/matrix, else the newest. Debian keeps the server's programs out of PATH.
postgres_bin() {
    [[ -z ${STACK_POSTGRES_BIN:-} ]] || { echo "$STACK_POSTGRES_BIN" && return; }
    local dir
    while read -r dir; do
        [[ -x $dir/postgres ]] && echo "$dir" && return
    done < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV)
    dir=$(command -v postgres) && dirname "$dir"
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below the range the kernel takes the ports of outgoing connections from (32768 and up): a server
# that is stopped and started again on its port does not find some client there.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((10240 + RANDOM % 20000))
        listening "$port" || { echo "$port" && return; }
    done
    fail "no free port on 127.0.0.1"
}

# launch LOG COMMAND...: in the background, its pid in $!. A session of its own, because Ctrl-C goes to
# the terminal's whole process group, and a server has to outlive its clients. A script's background
# commands ignore SIGINT, which stops Postgres.
launch() {
    local log=$1
    shift
    setsid env --default-signal=INT "$@" </dev/null >>"$log" 2>&1 &
}

# await WHAT SECONDS PID LOG CONDITION...: or fail with the last lines of the log.
await() {
    local what=$1 seconds=$2 pid=$3 log=$4 reason=
    shift 4
    local end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        if ! kill -0 "$pid" 2>/dev/null; then
            reason="it ended"
        elif ((SECONDS >= end)); then
            reason="not within $seconds s"
        else
            sleep 0.1
            continue
        fi
        tail -n 30 "$log" >&2
        printf '%s: %s: %s; the last lines of its log are above\n' "${0##*/}" "$what" "$reason" >&2
        return 1
    done
}

# stop SIGNAL SECONDS PID...: ask, wait, then make sure; the helpers of a server still starting included.
stop() {
    local signal=$1 end=$((SECONDS + $2)) pid
    shift 2
    for pid in "$@"; do kill -s "$signal" -- "-$pid" 2>/dev/null || true; done
    for pid in "$@"; do
        while ((SECONDS < end)) && kill -0 -- "-$pid" 2>/dev/null; do sleep 0.1; done
        kill -s KILL -- "-$pid" 2>/dev/null || true
    done
}

# Puts into `as` what a server is run with that refuses to run as root: the user postgres. That one may not be allowed
# into the folders above the server's (a checkout under /root, a temporary directory of mode 0700), so it keeps the right
# to pass them.
no_root() {
    as=()
    ((EUID == 0)) || return 0
    getent passwd postgres >/dev/null || fail "it does not run as root, and there is no user postgres"
    as=(setpriv --reuid=postgres --regid=postgres --init-groups
        --inh-caps=+dac_override --ambient-caps=+dac_override)
}

# psql without a password prompt, a start-up file or Debian's wrapper in between.
sql() { "$(STACK_POSTGRES_BIN='' postgres_bin)/psql" --no-psqlrc --no-password -v ON_ERROR_STOP=1 -qAt "$@"; }
