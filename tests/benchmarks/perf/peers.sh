#!/usr/bin/env bash
# Makes an environment for each peer that `make bench` compares with, in the folder given as $1:
#   peers.sh .bench [PYTHON]        what is there already is left as it is
set -euo pipefail

folder=${1:?the folder for the environments}
python=${2:-python3}

make_one() { # name, then what to install
    local name=$1 home=$folder/$1
    shift
    if [ -e "$home/.installed" ]; then
        return
    fi
    echo "peers: setting up $name in $home"
    "$python" -m venv --clear "$home"
    # The build of torch that covey itself is tested with: a plain range may bring CUDA's.
    "$home/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off -q \
        torch==2.13.0 "$@"
    touch "$home/.installed"
}

make_one hivemind hivemind==1.1.12 "numpy<2.4" # newer numpy breaks its 8-bit codecs silently
make_one flower flwr==1.41.0
