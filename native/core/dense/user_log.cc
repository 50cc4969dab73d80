#include "core/dense/user_log.h"

#include <algorithm>

#include "core/failure.h"

namespace collimate::dense {

namespace {

constexpr size_t kEventsForTestMin = 3;

}  // namespace

Part parse_part(const std::string& name) {
  if (name == "validation") return Part::validation;
  if (name == "test") return Part::test;
  if (name == "publish") return Part::publish;
  fail_bad_input("recipe.part: expected \"validation\", \"test\" or \"publish\", got \"" + name + "\"");
}

UserLog::UserLog(const std::filesystem::path& path)
    : file_(SafetensorsFile::open(path)), offsets_(file_.i64("user_offsets", {-1})), items_(file_.i32("items", {-1})) {
  const bool fits = !offsets_.empty() && offsets_.front() == 0 &&
                    offsets_.back() == static_cast<int64_t>(items_.size()) &&
                    std::is_sorted(offsets_.begin(), offsets_.end());
  if (!fits || items_.empty() || *std::min_element(items_.begin(), items_.end()) < 0) {
    fail_bad_input("dataset: expected ascending user_offsets from 0 to the number of items, " +
                   std::to_string(items_.size()) + ", at least one item, and no index below 0; ingest the log again");
  }
  item_count_ = int64_t{*std::max_element(items_.begin(), items_.end())} + 1;
}

std::span<const int32_t> UserLog::events(int64_t user) const {
  const auto begin = static_cast<size_t>(offsets_[static_cast<size_t>(user)]);
  return items_.subspan(begin, static_cast<size_t>(offsets_[static_cast<size_t>(user) + 1]) - begin);
}

std::span<const int32_t> UserLog::training_events(int64_t user) const {
  const std::span<const int32_t> all = events(user);
  return all.size() < kEventsForTestMin ? all : all.first(all.size() - 2);
}

bool UserLog::has_target(int64_t user, Part part) const {
  return events(user).size() >= (part == Part::publish ? 1 : kEventsForTestMin);
}

std::span<const int32_t> UserLog::known_events(int64_t user, Part part) const {
  const std::span<const int32_t> all = events(user);
  if (part == Part::publish || all.size() < kEventsForTestMin) return all;
  return all.first(all.size() - (part == Part::test ? 1 : 2));
}

}  // namespace collimate::dense
