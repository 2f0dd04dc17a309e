# Sourced by tools/test and tools/demo, from the repository root: makes .venv, installs impactreg into it, and puts it first on PATH.
# It is installed anew only when what it is made of has changed. PYTHON names another interpreter than python3.

# use_venv EXTRAS: an environment with `impactreg[EXTRAS]`, editable. Torch comes without CUDA where there is no NVIDIA GPU.
use_venv() {
    if [ ! -x .venv/bin/python ]; then
        "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "impactreg needs Python 3.11 or newer; name one: PYTHON=python3.12 " + sys.argv[1])' "$0"
        "${PYTHON:-python3}" -m venv .venv
    fi
    if nvidia-smi >/dev/null 2>&1; then
        constraint=
    else
        constraint="-c tools/constraints-cpu.txt"
    fi
    recipe="$1 $constraint $(cat setup.cfg pyproject.toml tools/constraints-cpu.txt | cksum)"
    if [ "$(cat ".venv/installed-$1" 2>/dev/null)" != "$recipe" ]; then
        echo "Installing impactreg[$1] into .venv"
        # shellcheck disable=SC2086
        .venv/bin/python -m pip install -qq --disable-pip-version-check $constraint -e ".[$1]"
        printf '%s\n' "$recipe" >".venv/installed-$1"
    fi
    PATH="$PWD/.venv/bin:$PATH"
    export PATH
}
