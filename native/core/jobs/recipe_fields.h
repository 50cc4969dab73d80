// Typed reading of a resolved recipe: every field is present and in range, or the job ends with bad_input naming it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "core/failure.h"
#include "core/json.h"

namespace collimate {

struct FieldRange {
  double least = 0;
  double most = std::numeric_limits<double>::infinity();
};

inline double recipe_number(const Json& recipe, const char* name, FieldRange range) {
  const auto field = recipe.find(name);
  if (field == recipe.end() || !field->is_number())
    fail_bad_input(std::string("recipe: expected a number `") + name + "`, got " +
                   (field == recipe.end() ? "nothing" : field->dump()) + "; resolve the recipe before the job starts");
  const double value = field->get<double>();
  if (!(value >= range.least && value <= range.most))
    fail_bad_input(std::string("recipe: expected `") + name + "` between " + Json(range.least).dump() + " and " +
                   (std::isinf(range.most) ? std::string("infinity") : Json(range.most).dump()) + ", got " +
                   field->dump());
  return value;
}

inline int64_t recipe_integer(const Json& recipe, const char* name, FieldRange range) {
  range.most = std::min(range.most, 9007199254740991.0);  // what JSON numbers hold exactly
  const double value = recipe_number(recipe, name, range);
  if (value != std::floor(value))
    fail_bad_input(std::string("recipe: expected a whole number `") + name + "`, got " + Json(value).dump());
  return static_cast<int64_t>(value);
}

}  // namespace collimate
