#!/usr/bin/env bash
# Builds the engine by plain CMake on a machine with a CUDA card, checks every kernel there and times what peers are timed at:
# parity with PyTorch's fixtures, gradients, determinism, the bytes of clustering, then bench_device. Needs nvcc, cmake, ninja; no Node.
#
#   native/bench/device/check.sh [results folder]
#
# nlohmann/json.hpp and doctest/doctest.h come from the system, or from build/headers where the system has none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
results=${1:-build/device-results}
mkdir -p "$results"

# The libraries that PyTorch brings, where the system has none.
wheels=$(python3 -c 'import glob, nvidia; print(":".join(glob.glob(nvidia.__path__[0] + "/*/lib")))' 2> /dev/null || true)
if [[ -n $wheels ]]; then export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$wheels; fi

options=(-S native -B build/device -G Ninja -DCMAKE_BUILD_TYPE=Release -DCOLLIMATE_CUDA=ON)
if [[ -d build/headers ]]; then
  options+=("-DNLOHMANN_JSON_INCLUDE=$PWD/build/headers" "-DDOCTEST_INCLUDE=$PWD/build/headers")
fi
started=$SECONDS
cmake "${options[@]}" > "$results/configure.log"
cmake --build build/device --target cuda_tests bench_device collimate-native native_tests > "$results/build.log"
echo "built in $((SECONDS - started)) s"

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$results/card.txt"
status=0
build/device/cuda_tests 2>&1 | tee "$results/tests.log" | tail -n 40 || status=1
build/device/collimate-native class --device cuda:0 | tee "$results/class.txt"
build/device/bench_device | tee "$results/bench.ndjson"
exit $status
