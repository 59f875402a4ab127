#!/bin/bash
# Makes sure that the Debian packages of tools/debian-packages.txt are there, and says what it installs.
#
#   tools/debian-packages.sh STAMP check|demo|test
#
# Asked for are the packages of the named set and of the sets before it. As root on Debian what is missing is installed and no
# service is started. Elsewhere it says what is missing: without the set `check` it stops, without the others it goes on, because
# then only what needs root lacks something. STAMP is touched when nothing is missing, so that make asks once.
set -eu
cd "$(dirname "$0")/.."
stamp=$1
list=tools/debian-packages.txt
case $2 in check) sets=check ;; demo) sets='check demo' ;; test) sets='check demo test' ;; esac
wanted=$(awk -v sets=" $sets " 'index(sets, " " $1 " ") { print $2 }' $list)

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" = "ii " ]; }
missing_of() { for package in "$@"; do is_installed "$package" || echo "$package"; done; }
done_with_it() { mkdir -p "$(dirname "$stamp")"; touch "$stamp"; exit 0; }

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "setup: this is not Debian. Please see to it that these are there (names of Debian 12):" $wanted
  if ! command -v python3 >/dev/null; then echo "setup: python3 is missing, so nothing can be done" >&2; exit 1; fi
  done_with_it
fi

missing=$(missing_of $wanted)
if [ -z "$missing" ]; then done_with_it; fi

if [ "$(id -u)" != 0 ]; then
  echo "setup: missing Debian packages:" $missing
  echo "setup: install them with: sudo apt-get install" $missing
  if ! python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "setup: without root only Python 3.11 or later with venv is asked for, and that is not there" >&2
    exit 1
  fi
  echo "setup: going on without them: what needs no root does not need them"
  exit 0
fi

echo "setup: installing Debian packages (reasons in $list):" $missing
policy=/usr/sbin/policy-rc.d # asked by every package script before it starts a service; 101 means: not allowed
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\nexit 101\n' > $policy
  chmod +x $policy
fi
export DEBIAN_FRONTEND=noninteractive
log=build/apt.log
mkdir -p build
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 $missing; } > $log 2>&1; then
  tail -n 20 $log >&2
  echo "setup: apt-get failed, its words are above and in $log" >&2
  exit 1
fi
touch "$stamp"
