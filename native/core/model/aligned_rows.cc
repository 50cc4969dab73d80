#include "core/model/aligned_rows.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/failure.h"
#include "core/ops.h"
#include "core/philox.h"
#include "core/safetensors.h"

namespace collimate {
namespace {

constexpr int64_t kVocabularyMultiple = 8;  // what rendering rounds a vocabulary up to

// `count` orthonormal vectors of `size` >= count values: Gram-Schmidt, twice, of normal draws.
std::vector<double> orthonormal_vectors(int64_t count, int64_t size, uint64_t seed) {
  const RandomStream stream{.seed = seed, .site = RandomSite::parameter_init, .stream = uint64_t{1} << 32};
  std::vector<double> vectors(count * size);
  for (int64_t i = 0; i < count * size; ++i) vectors[i] = random_normal(stream, static_cast<uint64_t>(i));
  const auto dot = [&](int64_t a, int64_t b) {
    double sum = 0;
    for (int64_t c = 0; c < size; ++c) sum += vectors[a * size + c] * vectors[b * size + c];
    return sum;
  };
  for (int64_t i = 0; i < count; ++i) {
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t j = 0; j < i; ++j) {
        const double along = dot(i, j);
        for (int64_t c = 0; c < size; ++c) vectors[i * size + c] -= along * vectors[j * size + c];
      }
    }
    const double inverse = 1.0 / std::sqrt(dot(i, i));
    for (int64_t c = 0; c < size; ++c) vectors[i * size + c] *= inverse;
  }
  return vectors;
}

// images [rows, from] in the model's width: [rows, to]
std::vector<float> project(Pool& pool, std::span<const float> images, int64_t from, int64_t to, uint64_t seed) {
  if (from == to) return {images.begin(), images.end()};
  const int64_t count = std::min(from, to), size = std::max(from, to);
  const std::vector<double> basis = orthonormal_vectors(count, size, seed);
  const int64_t rows = static_cast<int64_t>(images.size()) / from;
  std::vector<float> result(rows * to);
  pool.for_blocks(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t r = 0; r < to; ++r) {
        double sum = 0;
        for (int64_t c = 0; c < from; ++c)
          sum += static_cast<double>(images[i * from + c]) * (from < to ? basis[c * size + r] : basis[r * size + c]);
        result[i * to + r] = static_cast<float>(sum);
      }
    }
  });
  return result;
}

double root_mean_square(Pool& pool, std::span<const float> values) {
  return values.empty() ? 0.0 : std::sqrt(ops::sum_squares(pool, values) / static_cast<double>(values.size()));
}

}  // namespace

void initialise_aligned_rows(Pool& pool, Parameters& parameters, const AlignedRows& rows) {
  const SafetensorsFile file = SafetensorsFile::open(rows.path);
  const std::span<const float> images = file.f32("rows", {-1, -1, -1});
  const std::vector<int64_t>& shape = file.get("rows").shape;
  const int64_t levels = shape[0], codes = shape[1], tokens = parameters.config().vocabulary - rows.first_item_token;
  const int64_t unused = tokens - levels * codes;
  if (unused < 0 || unused >= kVocabularyMultiple)
    fail_bad_input("input `aligned`: expected an image for each of the " + std::to_string(tokens) +
                   " tokens from the first item token on (but for fewer than " + std::to_string(kVocabularyMultiple) +
                   " that round the vocabulary up), got " + std::to_string(levels) + " levels of " +
                   std::to_string(codes) + " codes; render and align from the same codebooks");
  const auto finite = [](float value) { return std::isfinite(value); };
  if (!std::all_of(images.begin(), images.end(), finite))
    fail_bad_input("input `aligned`: expected finite images of the codes, got others; align the codes again");
  const int64_t dim = parameters.at(parameters.embedding()).row_elements(), level_size = codes * dim;
  const std::vector<float> projected = project(pool, images, shape[2], dim, rows.seed);
  std::vector<int> tables{parameters.embedding()};
  if (parameters.head() != parameters.embedding()) tables.push_back(parameters.head());
  for (const int table : tables) {
    float* const values = parameters.data(table);
    const double spread = root_mean_square(pool, {values, static_cast<size_t>(rows.first_item_token * dim)});
    for (int64_t level = 0; level < levels; ++level) {
      const std::span<const float> of_level = std::span<const float>(projected).subspan(level * level_size, level_size);
      const double size = root_mean_square(pool, of_level);
      if (!(size > 0)) continue;
      const float scale = static_cast<float>(spread / size);
      for (int64_t code = 0; code < codes; ++code) {
        const float* from = &of_level[code * dim];
        if (std::all_of(from, from + dim, [](float value) { return value == 0.0f; })) continue;
        float* to = values + (rows.first_item_token + level * codes + code) * dim;
        for (int64_t c = 0; c < dim; ++c) to[c] = scale * from[c];
      }
    }
  }
}

}  // namespace collimate
