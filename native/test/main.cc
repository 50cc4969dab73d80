// The entry of native_tests: doctest's own main, on a thread prepared like a job's.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "core/pool.h"

int main(int argc, char** argv) {
  collimate::prepare_compute_thread();
  doctest::Context context(argc, argv);
  return context.run();
}
