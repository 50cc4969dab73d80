# Debian packages that the build and the tests need. Sourced by deploy/bootstrap.

# package | file or command that shows it is there | why
build_packages=(
  "g++|c++|compiles the native engine"
  "cmake|cmake|configures the native build"
  "ninja-build|ninja|runs the native build"
  "libdnnl-dev|/usr/include/dnnl.hpp|matrix products (oneDNN)"
  "nlohmann-json3-dev|/usr/include/nlohmann/json.hpp|JSON in the native engine"
  "doctest-dev|/usr/include/doctest/doctest.h|native tests"
)
test_packages=(
  "prometheus|promtool|scrapes a run in the tests, and checks metrics, rules and alerts"
)

is_there() {
  case $1 in
    /*) [[ -e $1 ]] ;;
    *) command -v "$1" > /dev/null ;;
  esac
}

as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi
}

apt_install() {
  # RUNLEVEL=1: where the init system honours it, a package's own daemon is installed but not started.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends "$@"
}

apt_update() { as_root apt-get -o DPkg::Lock::Timeout=120 update; }

require_apt() {
  command -v apt-get > /dev/null || die "expected: $*; this machine has no apt-get, so install them with its own package manager"
  if [[ $(id -u) != 0 ]] && ! command -v sudo > /dev/null; then
    die "expected root or sudo to install: $*; ask an administrator for: apt-get install $*"
  fi
}

ensure_debian_packages() {
  local entries=("${build_packages[@]}") missing=() entry package sign why
  if [[ $with_test_tools == 1 ]]; then entries+=("${test_packages[@]}"); fi
  for entry in "${entries[@]}"; do
    IFS='|' read -r package sign why <<< "$entry"
    is_there "$sign" && continue
    missing+=("$package")
    say "needed from Debian: $package ($why)"
  done
  if ((${#missing[@]} == 0)); then return; fi
  require_apt "${missing[@]}"
  step "list of Debian packages (apt-get update)" apt_update
  step "Debian packages: ${missing[*]}" apt_install "${missing[@]}"
}
