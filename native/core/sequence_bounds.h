// Where the sequence of each packed row begins and ends: what attention on a device reads in place of offsets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace collimate {

struct SequenceBounds {
  std::vector<int32_t> first_row, end_row;  // [T]

  // Sequence s is the rows offsets[s] .. offsets[s + 1].
  explicit SequenceBounds(std::span<const int64_t> offsets) {
    for (size_t s = 0; s + 1 < offsets.size(); ++s) {
      const auto rows = static_cast<size_t>(offsets[s + 1]);
      first_row.resize(rows, static_cast<int32_t>(offsets[s]));
      end_row.resize(rows, static_cast<int32_t>(offsets[s + 1]));
    }
  }
};

}  // namespace collimate
