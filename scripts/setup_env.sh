#!/bin/sh
# Makes .venv, with vistok and everything it needs in it, then runs COMMAND there, in the folder of the checkout:
#
#   scripts/setup_env.sh [COMMAND [ARGUMENT ...]]
#
# A second call finds it made and goes straight to COMMAND. It is brought up to date when pyproject.toml or
# constraints.txt change, and made anew when the checkout moved or an earlier set-up was cut off. A .venv that this
# script did not make is used, and never deleted. The system's own site-packages are never touched.
#
#   PYTHON=python3.12       the Python to use; default: the first >= 3.11 of python3, python3.11 ... python3.14
#   TORCH="torch==2.15.0"   another torch than the one in constraints.txt: what you would write after `pip install`
set -eu

cd "$(dirname "$0")/.."
here=$(pwd)
venv=.venv
made=$venv/.vistok-made    # this script made it, so this script may delete it
begun=$venv/.vistok-begun  # there while packages are installed: left behind, the set-up was cut off
ready=$venv/.vistok-ready  # what the finished set-up was made from
torch_from=$venv/.vistok-torch  # the version that constraints.txt gave, or the words of TORCH
PYTHON=${PYTHON:-}
TORCH=${TORCH:-}

say() { printf '%s\n' "$*" >&2; }
die() {
    say "vistok set-up: $*"
    exit 1
}

# "3.11" and the like; nothing for a Python that does not run or is too old.
version_of() {
    "$1" -c 'import sys; sys.version_info >= (3, 11) and print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

find_python() {
    for name in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14 python}; do
        [ -n "$(version_of "$name")" ] || continue
        case $(command -v "$name") in
            # Our own environment is active: it cannot be made anew from itself, only from the Python below it.
            "$here/$venv"/*) "$name" -c 'import sys; print(sys._base_executable)' ;;
            *) command -v "$name" ;;
        esac
        return
    done
    [ -z "$PYTHON" ] || die "PYTHON=$PYTHON does not run, or is older than 3.11."
    die "no Python >= 3.11 among python3, python3.11 ... python3.14. Install one, or say make PYTHON=/path/to/python3"
}

inside() { "$venv/bin/python" "$@"; }
has_pip() { inside -m pip --version >/dev/null 2>&1; }

# Renamed first: a deletion that is cut off must not leave half an environment under the name of a whole one.
remove_venv() {
    rm -rf "$venv".old.*
    if [ -e "$venv" ]; then mv "$venv" "$venv.old.$$"; fi
    rm -rf "$venv.old.$$"
}

try_venv() {
    remove_venv
    mkdir "$venv"
    : >"$made"
    "$@" "$venv" >/dev/null 2>&1
}

# Debian's Python comes without ensurepip, where `-m venv` fails: there the pip outside puts one inside.
make_venv() {
    say "Making $venv with $("$1" --version) ($1) ..."
    try_venv "$1" -m venv && has_pip && return
    try_venv "$1" -m venv --without-pip &&
        "$1" -m pip --python "$venv/bin/python" install --quiet pip >/dev/null 2>&1 && has_pip && return
    try_venv "$1" -m virtualenv && has_pip && return
    try_venv virtualenv --python "$1" && has_pip && return
    remove_venv
    die "$1 cannot make an environment. Install its venv module (Debian, Ubuntu: apt-get install python3-venv) or virtualenv."
}

# pip says its errors only. Where it fails by itself it changes nothing: an environment that was whole stays so.
pip_install() {
    if inside -m pip install --quiet --quiet "$@"; then return; fi
    if [ -e "$ready" ]; then rm -f "$begun"; fi
    die "pip could not install $* (its reason stands above)."
}

installed_torch() { inside -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true; }

# torch goes first, so that nothing else chooses one. One that the user installed stays.
install_torch() {
    have=$(installed_torch)
    from=$(cat "$torch_from" 2>/dev/null || true)
    if [ -n "$TORCH" ]; then
        if [ -n "$have" ] && [ "$TORCH" = "$from" ]; then return; fi
        say "Installing $TORCH ..."
        # Forced: to pip, 2.13.0+cpu is as good as any other 2.13.0.
        # shellcheck disable=SC2086  # a requirement and its options are several words
        pip_install --force-reinstall $TORCH
        printf '%s\n' "$TORCH" >"$torch_from"
    elif [ -z "$have" ] || [ "$have" = "$from" ]; then
        if [ -z "$have" ]; then say "Installing PyTorch, the largest part: up to a few minutes ..."; fi
        pip_install --constraint constraints.txt torch
        installed_torch >"$torch_from"
    fi
}

install_vistok() {
    say "Installing vistok and what training and tests need ..."
    sed "s/^torch==.*/torch==$(installed_torch)/" constraints.txt >"$venv/.vistok-constraints.txt"
    pip_install --constraint "$venv/.vistok-constraints.txt" --editable ".[dev]"
}

# Everything that a finished set-up depends on. The last line tells whether it can be brought up to date.
wanted() { cat pyproject.toml constraints.txt && identity; }
identity() { printf '%s python %s\n' "$here" "$(version_of "$venv/bin/python")"; }
python_fits() { [ -z "$PYTHON" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$venv/bin/python")" ]; }
torch_fits() { [ -z "$TORCH" ] || [ "$TORCH" = "$(cat "$torch_from" 2>/dev/null)" ]; }
is_ready() { [ -e "$ready" ] && [ ! -e "$begun" ] && wanted | cmp -s - "$ready" && python_fits && torch_fits; }

check_foreign_venv() {
    [ -n "$(version_of "$venv/bin/python")" ] || die "$venv holds no Python >= 3.11. Move it away: it is not ours to delete."
    python_fits || die "$venv holds another Python than $PYTHON. Move it away: it is not ours to delete."
    has_pip || inside -m ensurepip >/dev/null 2>&1 || die "$venv holds no pip. Put one in, or move $venv away."
}

# `python=` is its own statement: a failure inside an argument would go unseen.
set_up() {
    if is_ready; then return; fi  # another make has done it, while this one waited
    if [ ! -e "$venv" ]; then
        python=$(find_python)
        make_venv "$python"
    elif [ ! -e "$made" ]; then
        check_foreign_venv
    elif [ -e "$begun" ] || [ ! -e "$ready" ]; then
        python=$(find_python)
        say "An earlier set-up was cut off: starting again."
        make_venv "$python"
    elif [ "$(tail -n 1 "$ready")" != "$(identity)" ] || ! python_fits; then
        python=$(find_python)
        say "The checkout moved, or its Python changed: starting again."
        make_venv "$python"
    fi
    : >"$begun"
    install_torch
    install_vistok
    wanted >"$ready"
    rm -f "$begun"
    say "Ready: $venv, torch $(installed_torch)."
}

# One set-up at a time. flock ends with its holder; without it (macOS), a link names its holder.
locked_set_up() {
    trap 'exit 130' INT TERM HUP
    if command -v flock >/dev/null 2>&1; then
        exec 9>"$venv.lock"
        flock --nonblock 9 || { say "Waiting for another set-up to end ..." && flock 9; }
        set_up
        exec 9>&-
    else
        until ln -s "$$" "$venv.lock" 2>/dev/null; do
            kill -0 "$(readlink "$venv.lock")" 2>/dev/null || rm -f "$venv.lock"
            sleep 1
        done
        trap 'rm -f "$venv.lock"' EXIT
        set_up
        rm -f "$venv.lock"
        trap - EXIT
    fi
    trap - INT TERM HUP
}

# No home, or one that cannot be written: the caches (pip, Hub, matplotlib) go into the checkout.
if [ ! -d "${HOME:-}" ] || [ ! -w "$HOME" ]; then
    mkdir -p .cache/home
    if [ ! -d "${HOME:-}" ]; then export HOME="$here/.cache/home"; fi
    export XDG_CACHE_HOME="$here/.cache" MPLCONFIGDIR="$here/.cache/matplotlib"
fi
# A user's settings that would send packages elsewhere than into .venv, or wait for an answer.
unset PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONHOME
export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

is_ready || locked_set_up

if [ $# -gt 0 ]; then
    PATH=$here/$venv/bin:$PATH
    export PATH VIRTUAL_ENV="$here/$venv"
    exec "$@"
fi
