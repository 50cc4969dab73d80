#include "fixtures.h"

namespace collimate {

std::filesystem::path repository_root() { return COLLIMATE_REPOSITORY_ROOT; }

std::filesystem::path parity_fixture(const std::string& name) {
  return repository_root() / "test" / "parity" / "fixtures" / name;
}

}  // namespace collimate
