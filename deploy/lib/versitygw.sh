# Gets the S3 server that the tests of the artifact store run against. Sourced by deploy/bootstrap.
#
# Order: COLLIMATE_VERSITYGW, the PATH, the project's cache, the Go module proxy. Without it those tests skip and say so;
# orchestrator/artifacts/s3-test-server.ts looks in the first three.

versitygw_version=1.8.0

ensure_test_s3_server() {
  if [[ -n ${COLLIMATE_VERSITYGW:-} ]]; then
    [[ -x $COLLIMATE_VERSITYGW ]] || die "COLLIMATE_VERSITYGW names $COLLIMATE_VERSITYGW, which is no program that can be run; correct or unset it"
    return
  fi
  if command -v versitygw > /dev/null || [[ -x .cache/bin/versitygw ]]; then return; fi
  if ! command -v go > /dev/null; then
    say "needed from Debian: golang-go (builds the S3 server for the tests)"
    # In a shell of its own: what ends it must not end the bootstrap.
    (
      require_apt golang-go
      step "list of Debian packages (apt-get update)" apt_update
      step "Debian packages: golang-go" apt_install golang-go
    ) || true
  fi
  if ! command -v go > /dev/null; then
    say "  not to be had; tests of the artifact store on S3 will skip"
    return
  fi
  did_something=1
  say "versitygw $versitygw_version into .cache/bin (an S3 server, for the tests of the artifact store): some two minutes, once"
  local started=$SECONDS
  # Into a folder of its own first: an interrupted build must not leave half a program where it is looked for.
  if env GOBIN="$root/.cache/versitygw" go install "github.com/versity/versitygw/cmd/versitygw@v$versitygw_version" >> "$log_file" 2>&1 9>&- &&
    mv .cache/versitygw/versitygw .cache/bin/versitygw; then
    say "  done in $((SECONDS - started)) s"
  else
    say "  not to be had (whole output: $log_file); tests of the artifact store on S3 will skip"
  fi
  rm -rf .cache/versitygw
}
