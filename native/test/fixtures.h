// Where the parity fixtures lie (test/parity/fixtures).
#pragma once

#include <filesystem>
#include <string>

namespace collimate {

std::filesystem::path parity_fixture(const std::string& name);

}  // namespace collimate
