// Where the repository and its parity fixtures (test/parity/fixtures) lie.
#pragma once

#include <filesystem>
#include <string>

namespace collimate {

std::filesystem::path repository_root();
std::filesystem::path parity_fixture(const std::string& name);

}  // namespace collimate
