# Finds or gets the Temporal server program. Sourced by deploy/bootstrap.
#
# Order: COLLIMATE_TEMPORAL, the PATH, the project's cache, the vendor's download, the Go module proxy.
# orchestrator/cli/temporal-binary.ts looks in the first three.

temporal_version=1.5.1

ensure_temporal() {
  if [[ -n ${COLLIMATE_TEMPORAL:-} ]]; then
    [[ -x $COLLIMATE_TEMPORAL ]] || die "COLLIMATE_TEMPORAL names $COLLIMATE_TEMPORAL, which is no program that can be run; correct or unset it"
    return
  fi
  if command -v temporal > /dev/null || [[ -x .cache/bin/temporal ]]; then return; fi
  did_something=1
  say "Temporal server $temporal_version into .cache/bin (runs the workflows durably)"
  temporal_download && return
  say "  the vendor's download is not to be had; building it from the Go module proxy instead: about five minutes, once"
  temporal_build
}

temporal_download() {
  command -v curl > /dev/null || return 1
  local architecture archive=.cache/temporal.tar.gz
  case $(uname -m) in
    x86_64) architecture=amd64 ;;
    aarch64 | arm64) architecture=arm64 ;;
    *) return 1 ;;
  esac
  local url="https://temporal.download/cli/archive/v$temporal_version?platform=linux&arch=$architecture"
  curl --fail --silent --show-error --location --connect-timeout 5 --max-time 180 --output "$archive" "$url" >> "$log_file" 2>&1 || return 1
  mkdir -p .cache/temporal-unpacked
  tar --extract --gzip --file "$archive" --directory .cache/temporal-unpacked temporal >> "$log_file" 2>&1 || return 1
  rm -f "$archive"
  .cache/temporal-unpacked/temporal --version >> "$log_file" 2>&1 || return 1
  mv .cache/temporal-unpacked/temporal .cache/bin/temporal
  rm -rf .cache/temporal-unpacked
}

temporal_build() {
  if ! command -v go > /dev/null; then
    say "needed from Debian: golang-go (builds the Temporal server)"
    require_apt golang-go
    step "list of Debian packages (apt-get update)" apt_update
    step "Debian packages: golang-go" apt_install golang-go
  fi
  # Go 1.21 and newer fetch the toolchain that a module asks for.
  if ! go version | grep -Eq 'go1\.(2[1-9]|[3-9][0-9])|go[2-9]'; then
    die "expected Go 1.21 or newer to build the Temporal server, found \"$(go version)\"; install a newer one, or set COLLIMATE_TEMPORAL to a Temporal server"
  fi
  step "building the Temporal server with go install" \
    env GOBIN="$root/.cache/bin" go install "github.com/temporalio/cli/cmd/temporal@v$temporal_version"
}
