# A Python with torch, transformers and peft for the tests of exported models. Sourced by deploy/bootstrap.
#
# PyPI's torch is linked against 3 GB of CUDA libraries that a CPU never calls. They are not installed: a small library that has
# their symbols stands in for them, so that torch can be loaded. Only the CUDA runtime is real: it is called at load.
# Without a suitable Python or PyPI the tests that need it skip and say so; the rest does not depend on it.

python_folder=.cache/python

ensure_test_python() {
  local wanted stamp=$python_folder/.collimate-stamp python
  if [[ -n ${COLLIMATE_PYTHON:-} ]]; then return; fi
  wanted=$(printf '%s\0' test/parity/requirements.txt deploy/lib/python.sh | content_hash)
  stamp_matches "$stamp" "$wanted" && return
  if ! python=$(find_python); then
    say "no Python 3.11 or newer with venv was found (Debian: python3-venv); tests of exported models will skip"
    return
  fi
  did_something=1
  say "torch (CPU), transformers and peft into $python_folder, for the tests of exported models: about 1.6 GB, a minute or two"
  local started=$SECONDS
  rm -rf "$python_folder"
  if make_test_python "$python" >> "$log_file" 2>&1 9>&-; then
    write_stamp "$stamp" "$wanted"
    say "  done in $((SECONDS - started)) s"
  else
    rm -rf "$python_folder"
    say "  not to be had (whole output: $log_file); tests of exported models will skip"
  fi
}

find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

make_test_python() {
  "$1" -m venv "$python_folder" &&
    "$python_folder/bin/pip" install --no-deps --no-cache-dir --disable-pip-version-check --requirement test/parity/requirements.txt &&
    stand_in_for_cuda "$(echo "$python_folder"/lib/python3*/site-packages)" &&
    "$python_folder/bin/python" -c 'import torch, transformers, peft; x = torch.ones(2, 2, requires_grad=True); (x @ x).sum().backward()'
}

# One library under the name of every CUDA library that is not there, with each symbol (and symbol version) that torch asks of them.
stand_in_for_cuda() {
  local site=$1 lib=$1/torch/lib work name
  work=$(mktemp -d) || return 1
  ln -sf ../../nvidia/cu13/lib/libcudart.so.13 "$lib/libcudart.so.13"
  readelf --wide --dyn-syms "$lib"/*.so |
    awk '$7 == "UND" && $8 ~ /^(cu|nv|nccl)/ && $8 !~ /@libcudart/ { print $8 }' | sort -u > "$work/symbols"
  awk -F@ '!seen[$1]++ { print "long " $1 "(void) { return 0; }" }' "$work/symbols" > "$work/stand-in.c"
  awk -F@ 'NF > 1 { of[$2] = of[$2] $1 "; " } END { for (v in of) print v " { global: " of[v] "};" }' "$work/symbols" > "$work/versions"
  c++ -x c -w -shared -fPIC -fno-builtin -Wl,--version-script="$work/versions" -o "$lib/libno_cuda.so" "$work/stand-in.c" || return 1
  # The driver is looked for at run time and may be absent.
  readelf --wide --dynamic "$lib"/*.so | grep -oE 'NEEDED.*\[lib(cu|nv|nccl)[^]]*' | sed 's/.*\[//' | sort -u |
    while read -r name; do
      [[ -e $lib/$name || $name == libcuda.so.1 ]] || ln -s libno_cuda.so "$lib/$name"
    done
  rm -rf "$work"
}
