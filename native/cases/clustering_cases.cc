// Clustering: nearest centroids, one Lloyd step, residual codes both ways.
#include "cases/case.h"
#include "core/kmeans.h"
#include "core/residual_quantizer.h"

namespace collimate::cases {
namespace {

constexpr const char* kWhy = "fp32 rounding of a squared distance of a few dozen terms; codes are equal";

struct Shape {
  const char* what;
  Scale scale;
  int64_t rows, dim, clusters;
  int64_t levels = 1;
  double scores() const { return 2.0 * static_cast<double>(rows * dim * clusters * levels); }
  double row_bytes() const { return 4.0 * static_cast<double>(rows * dim); }
  std::vector<int64_t> rows_shape() const { return {rows, dim}; }
};

RowMatrix matrix(const Shape& s, Tensors& t) { return {t.f32("rows"), s.rows, s.dim}; }

std::span<float> values(Tensors& t, const char* name) { return t.at(name).f32; }

Case assign(const Shape& s) {
  return {.op = "assign_rows",
          .name = std::string("assign_rows/") + s.what,
          .scale = s.scale,
          .make =
              [s] {
                Maker make;
                return make.normal("rows", s.rows_shape())
                    .normal("centroids", {s.clusters, s.dim})
                    .integer_output("assignment", {s.rows})
                    .output("squared_distance", {s.rows})
                    .tensors;
              },
          .run =
              [s](Pool& pool, Tensors& t) {
                assign_rows(pool, matrix(s, t), values(t, "centroids"), t.at("assignment").i32,
                            values(t, "squared_distance"));
              },
          .work = {.flop = s.scores(), .bytes = s.row_bytes(), .bf16_products = true},
          .tolerance = 2e-6,
          .why = kWhy};
}

Case lloyd(const Shape& s) {
  return {.op = "lloyd_step",
          .name = std::string("lloyd_step/") + s.what,
          .scale = s.scale,
          .make =
              [s] {
                Maker make;
                return make.normal("rows", s.rows_shape())
                    .normal("centroids", {s.clusters, s.dim}, 0.6f, Role::replaced)
                    .double_output("objective", 1)
                    .tensors;
              },
          .run =
              [s](Pool& pool, Tensors& t) {
                *t.f64("objective") = lloyd_step(pool, matrix(s, t), values(t, "centroids")).objective;
              },
          .work = {.flop = s.scores(), .bytes = 2 * s.row_bytes(), .bf16_products = true},
          .tolerance = 2e-6,
          .why = kWhy};
}

ResidualCodebooks books(const Shape& s, Tensors& t) { return {s.levels, s.clusters, s.dim, values(t, "centroids")}; }

Case encode(const Shape& s, int64_t beam) {
  return {.op = "residual_encode",
          .name = std::string("residual_encode/") + s.what + (beam > 1 ? ", beam " + std::to_string(beam) : ""),
          .scale = s.scale,
          .parameters = {{"beam", static_cast<double>(beam)}},
          .make =
              [s] {
                Maker make;
                return make.normal("rows", s.rows_shape())
                    .normal("centroids", {s.levels, s.clusters, s.dim}, 0.5f)
                    .integer_output("codes", {s.rows, s.levels})
                    .output("squared_distance", {s.rows})
                    .tensors;
              },
          .run =
              [=](Pool& pool, Tensors& t) {
                residual_encode(
                    pool, matrix(s, t), books(s, t),
                    {.beam = beam, .codes = t.at("codes").i32, .squared_distance = values(t, "squared_distance")});
              },
          .work = {.flop = s.scores(), .bytes = 2 * s.row_bytes(), .bf16_products = true},
          .tolerance = 2e-6,
          .why = kWhy};
}

Case decode(const Shape& s) {
  return {
      .op = "residual_decode",
      .name = std::string("residual_decode/") + s.what,
      .scale = s.scale,
      .make =
          [s] {
            Maker make;
            return make.normal("centroids", {s.levels, s.clusters, s.dim})
                .below("codes", {s.rows, s.levels}, static_cast<int32_t>(s.clusters))
                .output("rows", s.rows_shape())
                .tensors;
          },
      .run = [s](Pool& pool, Tensors& t) { residual_decode(pool, t.at("codes").i32, books(s, t), values(t, "rows")); },
      .work = {.flop = static_cast<double>(s.rows * s.dim * s.levels), .bytes = s.row_bytes()},
      .tolerance = 1e-6,
      .why = "a sum of as many terms as levels"};
}

}  // namespace

void add_clustering_cases(std::vector<Case>& list) {
  // The shapes of bench_kmeans, with fewer rows.
  for (const Shape& shape : {Shape{"odd", Scale::tiny, 71, 7, 11}, Shape{"20000 x 64", Scale::bench, 20000, 64, 256},
                             Shape{"5000 x 768", Scale::bench, 5000, 768, 256}}) {
    list.push_back(assign(shape));
    list.push_back(lloyd(shape));
  }
  for (const Shape& shape :
       {Shape{"odd", Scale::tiny, 37, 7, 5, 3}, Shape{"20000 x 64", Scale::bench, 20000, 64, 256, 4},
        Shape{"5000 x 768", Scale::bench, 5000, 768, 256, 4}}) {
    list.push_back(encode(shape, 1));
    list.push_back(encode(shape, 5));
    list.push_back(decode(shape));
  }
}

}  // namespace collimate::cases
