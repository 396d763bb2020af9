#!/bin/sh
# Make .venv ready and return at once when it already is.
#
#   ./bootstrap.sh run     what `ringlog serve` needs     (requirements.lock)
#   ./bootstrap.sh dev     that and the tools for tests   (requirements-dev.lock, a superset)
#
# Every file that pip installs is checked against a hash in the lock, and only wheels are taken: a source
# package would run a build with tools that no hash covers. The project itself is not built: a .pth file puts
# this directory on the path and .venv/bin/ringlog starts it.
#
# A stamp in .venv holds the checksum of the lock it was made from, of this script and of this directory's
# path; while it agrees, nothing is done, which is what keeps a warm start near a second.
set -eu
unset PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV
cd "$(dirname "$0")"

venv=.venv
profile=${1:-run}
case $profile in
run) lock=requirements.lock ;;
dev) lock=requirements-dev.lock ;;
*)
    echo "usage: $0 run|dev" >&2
    exit 2
    ;;
esac

checksum() { # of a lock, with all else that a finished .venv depends on
    { cat "$1" bootstrap.sh && pwd; } | cksum
}

up_to_date() {
    [ -x "$venv/bin/python" ] && [ -x "$venv/bin/ringlog" ] &&
        [ "$(cat "$venv/.stamp-$profile" 2>/dev/null)" = "$(checksum "$lock")" ]
}

install_command() { # $1: packages for apt-get; the other systems' Python brings venv with it
    if command -v apt-get >/dev/null 2>&1; then
        echo "sudo apt-get install -y $1"
    elif command -v dnf >/dev/null 2>&1; then
        echo "sudo dnf install -y python3.12"
    elif command -v apk >/dev/null 2>&1; then
        echo "sudo apk add python3"
    elif command -v brew >/dev/null 2>&1; then
        echo "brew install python@3.13"
    else
        echo "install Python 3.11 or later from your system's packages"
    fi
}

find_python() { # the first interpreter that is new enough and can make a virtual environment
    newest=""
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 /usr/bin/python3}; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        newest=$candidate
        "$candidate" -c 'import ensurepip, venv' 2>/dev/null || continue
        echo "$candidate"
        return
    done
    if [ -n "$newest" ]; then
        echo "ringlog: $newest cannot make a virtual environment (its venv or ensurepip module is missing)." >&2
        echo "  Install it:  $(install_command python3-venv)" >&2
    else
        found=$(python3 --version 2>/dev/null || echo "no python3")
        echo "ringlog: Python 3.11 or later is needed; found $found." >&2
        echo "  Install it:  $(install_command 'python3 python3-venv')" >&2
        echo "  Or name one: PYTHON=/path/to/python3 make run" >&2
    fi
    exit 1
}

make_environment() {
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 && return
    python=$(find_python)
    echo "ringlog: making $venv with $("$python" --version) …" >&2
    "$python" -m venv --clear "$venv"
}

install_packages() {
    echo "ringlog: installing $(grep -c '^[a-z]' "$lock") packages from $lock (once, under a minute) …" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes --no-deps --only-binary :all: -r "$lock" || {
        echo "ringlog: pip could not install $lock; its message is above. Is the package index reachable?" >&2
        exit 1
    }
}

install_project() {
    here=$(pwd)
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$here" >"$site/ringlog.pth"
    # -P keeps the caller's directory off the path, where a folder named "storage" would win over ours.
    cat >"$venv/bin/ringlog" <<SCRIPT
#!/bin/sh
exec "$here/$venv/bin/python" -P -m bench.ringlog "\$@"
SCRIPT
    chmod +x "$venv/bin/ringlog"
}

up_to_date && exit 0
make_environment
install_packages
install_project
checksum requirements.lock >"$venv/.stamp-run"
if [ "$profile" = dev ]; then
    checksum "$lock" >"$venv/.stamp-dev"
fi
