# A CUDA compiler, so that the kernels of native/cuda are compiled on every machine, with or without a card. Sourced by deploy/bootstrap.
#
# Order: COLLIMATE_NVCC or CUDACXX, the PATH, /usr/local/cuda, the project's cache, PyPI (270 MB, into .cache/cuda). A system's nvcc
# older than 12 cannot compile C++20 and is passed over. Without any the engine is built without kernels, and says so.
# COLLIMATE_CUDA=OFF wants none.

cuda_folder=.cache/cuda

nvcc_serves() {
  local release
  release=$("$1" --version 2> /dev/null | sed -n 's/.*release \([0-9]*\)\..*/\1/p') && [[ -n $release ]] && ((release >= 12))
}

find_nvcc() {
  local candidate
  for candidate in "${COLLIMATE_NVCC:-}" "${CUDACXX:-}" "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc; do
    [[ -n $candidate ]] && nvcc_serves "$candidate" && echo "$candidate" && return
  done
  candidate=$(echo "$PWD/$cuda_folder"/lib/python3*/site-packages/nvidia/cu13/bin/nvcc)
  [[ -x $candidate && -f $cuda_folder/.collimate-stamp ]] && echo "$candidate"
}

# Exports CUDACXX where there is a compiler.
ensure_cuda_compiler() {
  local wanted stamp=$cuda_folder/.collimate-stamp python nvcc
  if [[ ${COLLIMATE_CUDA:-AUTO} == OFF ]]; then return; fi
  wanted=$(printf '%s\0' deploy/lib/cuda-requirements.txt deploy/lib/cuda.sh | content_hash)
  if [[ -f $stamp ]] && ! stamp_matches "$stamp" "$wanted"; then rm -rf "$cuda_folder"; fi
  if ! nvcc=$(find_nvcc); then
    if [[ -n ${COLLIMATE_NVCC:-} ]]; then die "expected COLLIMATE_NVCC to name an nvcc of release 12 or newer, got \"$COLLIMATE_NVCC\""; fi
    if ! python=$(find_python); then
      say "no CUDA compiler and no Python with venv to get one; the engine is built without CUDA kernels"
      return
    fi
    did_something=1
    say "NVIDIA's CUDA compiler into $cuda_folder (270 MB from PyPI), to compile the GPU kernels; COLLIMATE_CUDA=OFF does without"
    local started=$SECONDS
    rm -rf "$cuda_folder"
    if get_cuda_compiler "$python" >> "$log_file" 2>&1 9>&-; then
      write_stamp "$stamp" "$wanted"
      say "  done in $((SECONDS - started)) s"
    else
      rm -rf "$cuda_folder"
      say "  not to be had (whole output: $log_file); the engine is built without CUDA kernels"
      return
    fi
    nvcc=$(find_nvcc) || return
  fi
  export CUDACXX=$nvcc
}

get_cuda_compiler() {
  local site
  "$1" -m venv "$cuda_folder" &&
    "$cuda_folder/bin/pip" install --no-deps --no-cache-dir --disable-pip-version-check --requirement deploy/lib/cuda-requirements.txt &&
    site=$(echo "$cuda_folder"/lib/python3*/site-packages/nvidia/cu13) &&
    ln -s lib "$site/lib64" && # where nvcc looks for the runtime
    nvcc_serves "$site/bin/nvcc"
}
