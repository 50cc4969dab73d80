// The alignment loss against finite differences, the map that training starts from, retrieval, and the verdict on a
// curve.
#include <doctest/doctest.h>

#include <numeric>

#include "core/alignment/loss.h"
#include "core/alignment/map.h"
#include "test/gradient_check.h"

namespace collimate {
namespace {

constexpr int64_t kItems = 24;
constexpr alignment::Shape kShape{.levels = 3, .codes = 5, .dim = 7, .text_dim = 6};

std::vector<float> unit_texts(int64_t items, int64_t dim, uint64_t number) {
  std::vector<float> values = random_values(items * dim, number);
  const RowMatrix rows(values.data(), items, dim);
  std::vector<float> unit(values.size());
  alignment::UnitRows(rows).read(0, items, unit.data());
  return unit;
}

struct Problem {
  std::vector<float> rows = random_values(kItems * kShape.dim, 1), text = unit_texts(kItems, kShape.text_dim, 2);
  std::vector<float> parameters = random_values(kShape.centroid_elements() + kShape.map_elements(), 3);
  std::vector<int32_t> codes;
  Problem() {
    for (int64_t i = 0; i < kItems * kShape.levels; ++i) codes.push_back(static_cast<int32_t>((i * i + i / 3) % 5));
  }
  alignment::Loss loss(const alignment::Options& options, std::vector<float>& gradient, int threads = 1) {
    Pool pool(threads);
    gradient.assign(parameters.size(), 0.0f);
    return alignment::loss(pool, kShape, options, {rows, codes, text}, parameters, gradient);
  }
};

}  // namespace

TEST_CASE("alignment loss: its gradient agrees with finite differences, each term alone and all together") {
  Problem problem;
  const alignment::Options reconstruction{.weight = 0, .prefix_weight = 0, .temperature = 0.5f, .mean_squared_norm = 7};
  alignment::Options whole = reconstruction, prefixes = reconstruction, all = reconstruction;
  whole.weight = 3, prefixes.prefix_weight = 3, all.weight = 2, all.prefix_weight = 1.5;
  for (const alignment::Options& options : {reconstruction, whole, prefixes, all}) {
    CAPTURE(options.weight);
    CAPTURE(options.prefix_weight);
    std::vector<float> gradient, ignored;
    problem.loss(options, gradient);
    const auto loss = [&] { return problem.loss(options, ignored).total; };
    const size_t centroids = kShape.centroid_elements();
    const std::span<float> values = problem.parameters;
    const std::span<const float> analytic = gradient;
    CHECK(gradient_error({values.first(centroids), analytic.first(centroids), loss}) < 5e-3);
    if (options.weight + options.prefix_weight > 0)
      CHECK(gradient_error({values.subspan(centroids), analytic.subspan(centroids), loss}) < 5e-3);
  }
}

TEST_CASE("alignment loss: the same bytes on 1, 2 and 3 threads, and the terms add up") {
  Problem problem;
  const alignment::Options options{.weight = 0.4, .prefix_weight = 0.2, .temperature = 0.07f, .mean_squared_norm = 7};
  std::vector<float> expected, gradient;
  const alignment::Loss one = problem.loss(options, expected);
  CHECK(one.total == doctest::Approx(one.reconstruction + 0.4 * one.whole + 0.2 * one.prefixes));
  for (const int threads : {2, 3}) {
    CHECK(problem.loss(options, gradient, threads).total == one.total);
    CHECK(gradient == expected);
  }
}

TEST_CASE("alignment map: texts that are linear in the sums of codes are found again, and shuffled ones are not") {
  Pool pool(2);
  constexpr int64_t kCodes = 16, kDim = 8, kTextDim = 12, kAll = kCodes * kCodes;
  const std::vector<float> centroids = random_values(2 * kCodes * kDim, 5), truth = random_values(kTextDim * kDim, 6);
  std::vector<int32_t> codes;
  std::vector<float> text(kAll * kTextDim);
  std::vector<int64_t> items(kAll);
  std::iota(items.begin(), items.end(), 0);
  for (int64_t i = 0; i < kAll; ++i) {
    codes.push_back(static_cast<int32_t>(i / kCodes));
    codes.push_back(static_cast<int32_t>(i % kCodes));
    for (int64_t r = 0; r < kTextDim; ++r)
      for (int64_t c = 0; c < kDim; ++c)
        text[i * kTextDim + r] +=
            truth[r * kDim + c] * (centroids[(i / kCodes) * kDim + c] + centroids[(kCodes + i % kCodes) * kDim + c]);
  }
  const RowMatrix rows(text.data(), kAll, kTextDim);
  const alignment::UnitRows unit(rows);
  const ResidualCodebooks books{2, kCodes, kDim, centroids};
  const alignment::CodedTexts texts{books, codes, unit, items};
  const std::vector<float> map = alignment::ridge_map(pool, texts);
  const alignment::Retrieval found = alignment::retrieve(pool, texts, map);
  CHECK(found.items == kAll);
  CHECK(found.recall_at_1 > 0.9);
  CHECK(found.recall_at_10 == 1.0);
  Pool three(3);
  CHECK(alignment::ridge_map(three, texts) == map);

  std::vector<int32_t> shuffled(codes.rbegin(), codes.rend());
  const alignment::Retrieval lost = alignment::retrieve(pool, {books, shuffled, unit, items}, map);
  CHECK(lost.recall_at_1 < 0.1);
}

TEST_CASE("alignment verdict: a curve that comes to rest has converged where it did; one that still falls has not") {
  std::vector<float> rest(1000), falling(1000), rising(1000);
  for (size_t i = 0; i < rest.size(); ++i) {
    rest[i] = i < 400 ? 5.0f - 0.01f * static_cast<float>(i) : 1.0f;
    falling[i] = 5.0f - 0.004f * static_cast<float>(i);
    rising[i] = static_cast<float>(i);
  }
  const alignment::Verdict verdict = alignment::judge_curve(rest);
  CHECK(verdict.converged);
  CHECK(verdict.step >= 400);
  CHECK(verdict.step <= 450);
  CHECK(verdict.last == doctest::Approx(1.0));
  CHECK(!alignment::judge_curve(falling).converged);
  CHECK(!alignment::judge_curve(rising).converged);
  CHECK(!alignment::judge_curve(std::span<const float>(rest).first(3)).converged);
}

}  // namespace collimate
