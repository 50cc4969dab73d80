// One alias for the JSON library, so that only this file names it.
#pragma once

#include <nlohmann/json.hpp>

namespace collimate {

using Json = nlohmann::json;

}  // namespace collimate
