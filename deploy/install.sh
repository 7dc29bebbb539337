#!/usr/bin/env bash
# Makes the virtual environment given as $1 with covey's pinned development set-up in it.
# PYTHON names the interpreter; without it the newest that is new enough is taken.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${1:-.venv}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

fail() {
    printf 'covey: %s\n' "$@" >&2
    exit 1
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

python=""
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if command -v "$candidate" >/dev/null && new_enough "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    found=$("${PYTHON:-python3}" --version 2>/dev/null || echo "none")
    fail "Python 3.11 or newer is needed; ${PYTHON:-python3} is: $found" \
        "install one (Debian, Ubuntu: sudo apt-get install python3 python3-venv;" \
        "macOS: brew install python), or name it: make demo PYTHON=/path/to/python3.12"
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    fail "$python has no venv module; on Debian and Ubuntu it is a package of its own:" \
        "sudo apt-get install python$version-venv"
fi

pins="pyproject.toml constraints.txt deploy/install.sh"
# shellcheck disable=SC2086
if [ -e "$venv/.installed" ] && [ -z "$(find $pins -newer "$venv/.installed")" ] &&
    "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "covey: installing this folder in $venv once more"
else
    echo "covey: setting up $venv with $("$python" --version) (once; torch is the large part)"
    "$python" -m venv --clear "$venv" ||
        fail "could not make $venv; is $(pwd) writable and the disk not full? (df -h .)"
fi

# One line for each thing pip fetches; the whole log is shown only if it fails.
if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
    --progress-bar off -c constraints.txt -e '.[dev,demo,simulate]' 2>&1 | tee "$log" | awk '
        /^ *(Downloading|Using cached|Processing) .*\.(whl|tar\.gz)/ {
            name = $0
            sub(/^ *(Downloading|Using cached|Processing) /, "", name)
            sub(/^[^ ]*\//, "", name)
            sub(/-(py2\.py3|py3|cp[0-9]+|pp[0-9]+)-[^ ]*/, "", name)
            sub(/\.tar\.gz/, "", name)
            sub(/ \(from .*/, "", name)
            if (!(name in seen)) { print "  " name; fflush() }
            seen[name] = 1
        }
        /^Installing collected packages/ { print "  installing"; fflush() }'; then
    tail -n 15 "$log" >&2
    fail "pip failed; see above.  Is the network there?  \`make test\` tries again."
fi
kernels=$("$venv/bin/python" -P -c "from covey.gossip.native import IN_USE; print(IN_USE)")
case $kernels in
    C*) echo "covey: exchanges are computed in $kernels" ;;
    *) echo "covey: exchanges are computed with $kernels; with a C compiler and Python's headers" \
        "(Debian, Ubuntu: gcc python3-dev) they would be several times faster" ;;
esac
