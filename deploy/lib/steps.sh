# Steps of the bootstrap: messages, content stamps, npm packages and the build. Sourced by deploy/bootstrap.

say() { echo "bootstrap: $*" >&2; }

die() {
  say "$*"
  exit 1
}

# step "what, and why" command…: one line on the terminal, the output in the log; its end is shown on failure.
step() {
  local what=$1
  shift
  did_something=1
  say "$what"
  {
    echo
    echo "== $(date -u +%FT%TZ) $what"
    echo "\$ $*"
  } >> "$log_file"
  local started=$SECONDS
  # 9 is the lock: a process that outlives this script must not hold it.
  if ! "$@" >> "$log_file" 2>&1 9>&-; then
    tail -n 25 "$log_file" >&2
    die "failed: $what (whole output: $log_file)"
  fi
  local took=$((SECONDS - started))
  if ((took >= 2)); then say "  done in $took s"; fi
}

# SHA-256 over the names and contents of files; stamps hold it so that only a change of content causes work.
content_hash() { LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1; }

stamp_matches() { [[ -f $1 && $(cat "$1") == "$2" ]]; }

write_stamp() {
  echo "$2" > "$1.partial"
  mv "$1.partial" "$1"
}

require_node() {
  command -v node > /dev/null || die "expected Node.js 20.6 or newer on the PATH, found none; install it from nodejs.org or your distribution"
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 6) ? 0 : 1)' ||
    die "expected Node.js 20.6 or newer, found $(node --version); install a newer one"
}

ensure_npm_packages() {
  local wanted stamp=node_modules/.collimate-stamp
  wanted=$(printf '%s\0' package.json package-lock.json .npmrc | content_hash)-$(node -p 'process.versions.modules')
  stamp_matches "$stamp" "$wanted" && return
  step "npm packages of package-lock.json into node_modules (Temporal SDK, gRPC, Prometheus client, build and test tools)" \
    install_npm_packages
  write_stamp "$stamp" "$wanted"
}

# `npm ci` refuses a lock file made where the registry lacked packages for other systems (optional ones, such as
# a macOS binary); `npm install --no-save` takes the locked versions all the same and leaves the lock file alone.
install_npm_packages() {
  npm ci && return
  echo "npm ci refused the lock file; npm install takes its versions instead"
  npm install --no-save
}

native_sources() {
  find native -type f \( -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' -o -name '*.in' -o -name '*.cmake' -o -name 'CMakeLists.txt' -o -name 'build.mjs' \) -print0
  printf '%s\0' package-lock.json
}

# Tests are compiled too: the type check covers them.
typescript_sources() {
  find proto workflows orchestrator native/worker deploy test -type f \( -name '*.ts' -o -name '*.proto' -o -name '*.mjs' -o -name '*.json' \) \
    -not -path 'proto/generated/*' -print0
  # The engine revision in dist/build-info.json covers the native sources.
  find native/core native/cpu native/cuda native/collective -type f \( -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) -print0 2> /dev/null || true
  printf '%s\0' package.json package-lock.json tsconfig.json vitest.config.ts
}

ensure_build() {
  local native_hash typescript_hash
  # With or without a CUDA compiler the engine is another one.
  native_hash=$(native_sources | content_hash)-$(node -p 'process.versions.modules')-${CUDACXX:+cuda}
  if ! stamp_matches build/native/.collimate-stamp "$native_hash"; then
    step "native engine and addon into build/native (C++; some minutes the first time)" npm run --silent build:native
    mkdir -p build/native
    write_stamp build/native/.collimate-stamp "$native_hash"
  fi
  typescript_hash=$(typescript_sources | content_hash)
  if ! stamp_matches dist/.collimate-stamp "$typescript_hash" || [[ ! -d proto/generated ]]; then
    step "gRPC types, TypeScript and the workflow bundle into dist" bash -c 'npm run --silent build:proto && npm run --silent build:ts'
    write_stamp dist/.collimate-stamp "$typescript_hash"
  fi
}
