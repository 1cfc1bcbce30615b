#!/usr/bin/env bash
# Makes sure the system packages are there: `setup.sh run` for building and running Dunlin, `setup.sh test` for the
# tests against real peers as well. On Debian and Ubuntu what is missing is installed; elsewhere it is named and the
# script ends with 1. When nothing is missing it changes nothing and takes no time.
set -euo pipefail

level=${1:-test}
case $level in
    run | test) ;;
    *)
        echo "usage: scripts/setup.sh [run|test]" >&2
        exit 2
        ;;
esac

# Debian's chromium packages are named otherwise on Ubuntu.
chromium_package=chromium
driver_package=chromium-driver
os_ids=unknown
if [ -r /etc/os-release ]; then
    os_ids=$(. /etc/os-release && echo "${ID:-} ${ID_LIKE:-}")
    case $os_ids in
        ubuntu*)
            chromium_package=chromium-browser
            driver_package=chromium-chromedriver
            ;;
    esac
fi

have() { command -v "$1" >/dev/null 2>&1; }
have_any() { for name in "$@"; do have "$name" && return 0; done; return 1; }
# A header counts as present when the compiler finds it, wherever it was installed.
have_header() { have g++ && echo "#include <$1>" | g++ -E -x c++ - >/dev/null 2>&1; }

missing=() # what is missing, in words
packages=() # the Debian packages that bring it
need() { # need WORDS PACKAGE PROBE...
    local words=$1 package=$2
    shift 2
    if ! "$@"; then
        missing+=("$words")
        packages+=("$package")
    fi
}

probe() {
    missing=()
    packages=()
    need "a C++ compiler (g++)" build-essential have g++
    need "make" build-essential have make
    need "cmake" cmake have cmake
    need "pkg-config" pkg-config have pkg-config
    need "the Boost headers" libboost-dev have_header boost/multi_index_container.hpp
    [ "$level" = run ] && return 0
    need "ninja" ninja-build have ninja
    need "the libevent headers" libevent-dev have_header event2/event.h
    need "Python 3 with venv" python3-venv python3 -c 'import ensurepip, venv'
    need "transmission-daemon" transmission-daemon have transmission-daemon
    need "aria2" aria2 have aria2c
    need "ffmpeg" ffmpeg have ffmpeg
    need "Chromium" "$chromium_package" have_any chromium chromium-browser google-chrome
    need "chromedriver" "$driver_package" have chromedriver
    # setpriv ends a real peer together with the test run that started it, however that run ends.
    need "setpriv" util-linux have setpriv
}

probe 2>/dev/null
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

if ! have apt-get; then
    echo "setup: missing on this machine:" >&2
    printf '  %s\n' "${missing[@]}" >&2
    echo "setup: install them with your package manager, then try again (on Debian they are: ${packages[*]})" >&2
    exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! have sudo; then
        echo "setup: as root, run: apt-get install ${packages[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

# transmission-daemon's package starts and enables a service. Tests run their own daemons, so the service stays off:
# a policy file forbids starting services while packages are installed, and goes away afterwards.
policy=/usr/sbin/policy-rc.d
policy_is_ours=no
had_transmission=no
have transmission-daemon && had_transmission=yes
cleanup() {
    if [ $policy_is_ours = yes ]; then
        "${as_root[@]}" rm -f $policy
    fi
}
trap cleanup EXIT
if [ ! -e $policy ]; then
    policy_is_ours=yes
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
    "${as_root[@]}" chmod 755 $policy
fi

echo "setup: installing ${packages[*]}"
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends "${packages[@]}" >/dev/null
if [ $had_transmission = no ] && have transmission-daemon && [ -d /run/systemd/system ]; then
    "${as_root[@]}" systemctl disable --quiet transmission-daemon || true
fi

probe 2>/dev/null
if [ ${#missing[@]} -ne 0 ]; then
    echo "setup: still missing after installing:" >&2
    printf '  %s\n' "${missing[@]}" >&2
    exit 1
fi
