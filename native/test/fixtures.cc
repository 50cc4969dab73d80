#include "fixtures.h"

namespace collimate {

std::filesystem::path parity_fixture(const std::string& name) {
  return std::filesystem::path(COLLIMATE_REPOSITORY_ROOT) / "test" / "parity" / "fixtures" / name;
}

}  // namespace collimate
