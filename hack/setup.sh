#!/bin/sh
# Makes .venv from the locks: `make setup`. Wants Python 3.11 to 3.14 on x86-64 Linux, and reaches the package index.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}

stop() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# The one command that installs a system package: carried out where it may be, said where not.
system_package() { # what it is for, Debian's name of the package
  command -v apt-get >/dev/null || stop "$1 is missing; install what Debian calls $2, then run make again"
  [ "$(id -u)" = 0 ] || stop "$1 is missing; run: sudo apt-get install -y $2"
  printf 'setup: installing %s\n' "$2" >&2
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -qq -y "$2" >/dev/null 2>&1 || { apt-get update -qq && apt-get install -qq -y "$2" >/dev/null; } ||
    stop "$1 is missing and could not be installed; run: apt-get install -y $2"
}

[ "$(uname -sm)" = "Linux x86_64" ] ||
  stop "$(uname -sm) is not supported: the locked wheels are for x86-64 Linux; use a container or a machine of that kind"
[ -n "$python" ] || stop "there is no Python; install Python 3.11, or say where it is: make setup PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || stop \
  "$("$python" --version 2>&1) ($python) is not supported, 3.11 to 3.14 are; say where one is: make setup PYTHON=/path/to/python3.11"
"$python" -c 'import venv, ensurepip' 2>/dev/null || system_package "Python's venv module" python3-venv
"$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null || system_package "libnuma, which vLLM needs" libnuma1
command -v c++ >/dev/null || system_package "a C++ compiler, which DeepSpeed needs when it is used," g++

# What the environment is made from, and where: when neither changed, there is nothing to do.
state=$({ printf '%s\n' "$PWD" && cat hack/setup.sh locks/bootstrap.lock locks/dev.lock jobs/*/pyproject.toml */pyproject.toml; } | sha256sum)
if [ "$(cat .venv/.ready 2>/dev/null)" = "$state" ]; then
  touch .venv/.ready
  exit 0
fi

rm -f .venv/.ready
# An environment that was moved, or whose interpreter went away, is made anew.
[ "$(cat .venv/.checkout 2>/dev/null)" = "$PWD" ] && .venv/bin/python -c '' 2>/dev/null || "$python" -m venv --clear .venv
printf '%s\n' "$PWD" >.venv/.checkout
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/bootstrap.lock

export VIRTUAL_ENV="$PWD/.venv"
quiet=--quiet
[ ! -t 2 ] || quiet=
printf 'setup: installing the %s packages of locks/dev.lock (7 GB, minutes the first time)\n' "$(grep -c == locks/dev.lock)" >&2
# Byte code now, not at the first import: it halves every start. DeepSpeed comes as source alone: it is built with the
# locked setuptools, and its C++ parts not before they are used.
DS_BUILD_OPS=0 .venv/bin/uv pip sync $quiet --require-hashes --only-binary :all: --no-binary deepspeed \
  --build-constraint locks/dev.lock --compile-bytecode locks/dev.lock
set --
for distribution in jobs/*/pyproject.toml operator/pyproject.toml cli/pyproject.toml; do
  set -- "$@" -e "$(dirname "$distribution")"
done
.venv/bin/uv pip install --quiet --no-deps --no-build-isolation "$@"
printf '%s\n' "$state" >.venv/.ready
