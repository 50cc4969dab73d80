// Clustering on a device. The public steps work on host memory: the rows are what is on the device beforehand.
#include "cases/on_device_case.h"
#include "cuda/clustering.h"

namespace collimate::cases {
namespace {

std::span<float> host_values(OnDevice& t, const std::string& name) { return t.host(name).f32; }

Run assign_rows(OnDevice& t) {
  auto& rows = t.keep_object(RowMatrix(t.host("rows").f32.data(), t.dim("rows", 0), t.dim("rows", 1)));
  auto there = std::make_shared<cuda::ClusteredRows>(t.device, rows, 1);
  return [&t, there] {
    there->assign({}, host_values(t, "centroids"), host_values(t, "squared_distance"));
    there->download_codes(t.host("assignment").i32, 1);
    t.results_are_on_host();
  };
}

Run lloyd_step(OnDevice& t) {
  auto& rows = t.keep_object(RowMatrix(t.host("rows").f32.data(), t.dim("rows", 0), t.dim("rows", 1)));
  auto there = std::make_shared<cuda::ClusteredRows>(t.device, rows, 1);
  return [&t, there] {
    t.host("objective").f64[0] = there->lloyd_step({}, host_values(t, "centroids")).objective;
    t.results_are_on_host();
  };
}

// A beam of one; wider ones are the processor's.
Run residual_encode(OnDevice& t) {
  if (t.number("beam") > 1) return {};
  auto& rows = t.keep_object(RowMatrix(t.host("rows").f32.data(), t.dim("rows", 0), t.dim("rows", 1)));
  const int64_t levels = t.dim("centroids", 0);
  auto there = std::make_shared<cuda::ClusteredRows>(t.device, rows, levels);
  return [&t, there, levels] {
    there->encode({levels, t.dim("centroids", 1), t.dim("centroids", 2), host_values(t, "centroids")},
                  host_values(t, "squared_distance"));
    there->download_codes(t.host("codes").i32, levels);
    t.results_are_on_host();
  };
}

Run residual_decode(OnDevice& t) {
  return
      [&t, args = cuda::ResidualDecode{.rows = t.dim("codes", 0),
                                       .codes = t.i32("codes"),
                                       .books = {nullptr, t.f32("centroids"), t.dim("rows", 1), t.dim("centroids", 1)},
                                       .levels = t.dim("codes", 1),
                                       .to = t.f32("rows")}] { cuda::residual_decode(t.device, args); };
}

}  // namespace

void add_clustering_loads(Loads& table) {
  table.insert({{"assign_rows", assign_rows},
                {"lloyd_step", lloyd_step},
                {"residual_decode", residual_decode},
                {"residual_encode", residual_encode}});
}

}  // namespace collimate::cases
