// Operands by the tensors' names, sizes by their shapes, the rest by the case's parameters: as the PyTorch reference
// does.
#include "cases/on_device.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "cuda/clustering.h"
#include "cuda/dccf.h"
#include "cuda/linear_bf16.h"
#include "cuda/ops.h"

namespace collimate::cases {
namespace {

using cuda::Device;
using cuda::DeviceArray;

// The tensors of one case on the device.
class OnDevice {
 public:
  OnDevice(const Case& one, Tensors& host) : one_(one), host_(host) {
    for (auto& [name, tensor] : host.all()) {
      if (!tensor.i32.empty())
        i32_[name] = DeviceArray<int32_t>(device, tensor.i32);
      else if (!tensor.f64.empty())
        f64_[name] = DeviceArray<double>(device, tensor.f64);
      else
        f32_[name] = DeviceArray<float>(device, std::span<const float>(tensor.f32));
    }
  }
  void bring_back() {
    if (on_host_) return;
    for (auto& [name, tensor] : host_.all()) {
      if (tensor.role == Role::input || tensor.role == Role::scratch) continue;
      if (!tensor.i32.empty())
        i32_.at(name).download(tensor.i32);
      else if (!tensor.f64.empty())
        f64_.at(name).download(tensor.f64);
      else
        f32_.at(name).download(tensor.f32);
    }
  }
  // Null for a tensor that the case lacks, or that is empty.
  float* f32(const std::string& name) const { return f32_.count(name) == 1 ? f32_.at(name).data() : nullptr; }
  int32_t* i32(const std::string& name) const { return i32_.count(name) == 1 ? i32_.at(name).data() : nullptr; }
  double* f64(const std::string& name) const { return f64_.at(name).data(); }
  Tensor& host(const std::string& name) const { return host_.at(name); }
  void results_are_on_host() { on_host_ = true; }
  int64_t dim(const std::string& name, size_t axis) const { return host_.at(name).shape.at(axis); }
  int64_t elements(const std::string& name) const { return host_.at(name).elements(); }
  double number(const std::string& name) const { return one_.parameters.at(name); }
  float real(const std::string& name) const { return static_cast<float>(number(name)); }
  int64_t whole(const std::string& name) const { return static_cast<int64_t>(number(name)); }
  // More device memory, for as long as the case is loaded.
  template <typename T>
  T* keep(const std::vector<T>& values) {
    auto array = std::make_shared<DeviceArray<T>>(device, std::span<const T>(values));
    kept_.push_back(array);
    return array->data();
  }
  template <typename T>
  T& keep_object(T value) {
    auto object = std::make_shared<T>(std::move(value));
    kept_.push_back(object);
    return *object;
  }

  Device device;

 private:
  const Case& one_;
  Tensors& host_;
  bool on_host_ = false;
  std::map<std::string, DeviceArray<float>> f32_;
  std::map<std::string, DeviceArray<int32_t>> i32_;
  std::map<std::string, DeviceArray<double>> f64_;
  std::vector<std::shared_ptr<void>> kept_;
};

using Run = std::function<void()>;
using Load = Run (*)(OnDevice& t);

Run embedding_forward(OnDevice& t) {
  return [&t, args = ops::EmbeddingForward{.rows = t.elements("tokens"),
                                           .dim = t.dim("table", 1),
                                           .vocabulary = t.dim("table", 0),
                                           .table = t.f32("table"),
                                           .tokens = t.i32("tokens"),
                                           .y = t.f32("y")}] { cuda::embedding_forward(t.device, args); };
}

Run embedding_backward(OnDevice& t) {
  return [&t, args = ops::EmbeddingBackward{.rows = t.elements("tokens"),
                                            .dim = t.dim("dtable", 1),
                                            .first_row = t.whole("first_row"),
                                            .table_rows = t.dim("dtable", 0),
                                            .tokens = t.i32("tokens"),
                                            .dy = t.f32("dy"),
                                            .dtable = t.f32("dtable")}] { cuda::embedding_backward(t.device, args); };
}

Run rmsnorm_forward(OnDevice& t) {
  return
      [&t, args = ops::RmsNormForward{.rows = t.dim("x", 0),
                                      .dim = t.dim("x", 1),
                                      .eps = t.real("eps"),
                                      .x = t.f32("x"),
                                      .delta = t.f32("delta"),
                                      .sum = t.f32("sum"),
                                      .weight = t.f32("weight"),
                                      .y = t.f32("y"),
                                      .inverse_rms = t.f32("inverse_rms")}] { cuda::rmsnorm_forward(t.device, args); };
}

Run rmsnorm_backward(OnDevice& t) {
  return [&t, args = ops::RmsNormBackward{.rows = t.dim("x", 0),
                                          .dim = t.dim("x", 1),
                                          .x = t.f32("x"),
                                          .weight = t.f32("weight"),
                                          .inverse_rms = t.f32("inverse_rms"),
                                          .dy = t.f32("dy"),
                                          .dx = t.f32("dx"),
                                          .dweight = t.f32("dweight")}] { cuda::rmsnorm_backward(t.device, args); };
}

Run head_norm_forward(OnDevice& t) {
  return [&t, args = ops::HeadNormForward{.rows = t.dim("x", 0),
                                          .heads = t.whole("heads"),
                                          .head_dim = t.whole("head_dim"),
                                          .eps = t.real("eps"),
                                          .weight = t.f32("weight"),
                                          .x = t.f32("x"),
                                          .x_stride = t.dim("x", 1),
                                          .raw = t.f32("raw"),
                                          .inverse_rms = t.f32("inverse_rms")}] {
    cuda::head_norm_forward(t.device, args);
  };
}

Run head_norm_backward(OnDevice& t) {
  return [&t, args = ops::HeadNormBackward{.rows = t.dim("dx", 0),
                                           .heads = t.whole("heads"),
                                           .head_dim = t.whole("head_dim"),
                                           .weight = t.f32("weight"),
                                           .raw = t.f32("raw"),
                                           .inverse_rms = t.f32("inverse_rms"),
                                           .dx = t.f32("dx"),
                                           .dx_stride = t.dim("dx", 1),
                                           .dweight = t.f32("dweight")}] { cuda::head_norm_backward(t.device, args); };
}

Run unit_rows_forward(OnDevice& t) {
  return [&t, args = ops::UnitRowsForward{.rows = t.dim("x", 0),
                                          .dim = t.dim("x", 1),
                                          .length = t.real("length"),
                                          .x = t.f32("x"),
                                          .y = t.f32("y"),
                                          .inverse_length = t.f32("inverse_length")}] {
    cuda::unit_rows_forward(t.device, args);
  };
}

Run unit_rows_backward(OnDevice& t) {
  return [&t, args = ops::UnitRowsBackward{.rows = t.dim("y", 0),
                                           .dim = t.dim("y", 1),
                                           .length = t.real("length"),
                                           .y = t.f32("y"),
                                           .inverse_length = t.f32("inverse_length"),
                                           .dy = t.f32("dy"),
                                           .dx = t.f32("dx")}] { cuda::unit_rows_backward(t.device, args); };
}

Run swiglu_forward(OnDevice& t) {
  return
      [&t, args = ops::SwiGluForward{
               .rows = t.dim("act", 0), .ffn_dim = t.dim("act", 1), .gate_up = t.f32("gate_up"), .act = t.f32("act")}] {
        cuda::swiglu_forward(t.device, args);
      };
}

Run linear_forward(OnDevice& t) {
  return [&t, args = ops::LinearForward{.rows = t.dim("x", 0),
                                        .in = t.dim("weight", 1),
                                        .out = t.dim("weight", 0),
                                        .x = t.f32("x"),
                                        .x_stride = t.dim("x", 1),
                                        .weight = t.f32("weight"),
                                        .y = t.f32("y"),
                                        .y_stride = t.dim("y", 1)}] { cuda::linear_forward(t.device, args); };
}

Run linear_backward(OnDevice& t) {
  return [&t, args = ops::LinearBackward{.rows = t.dim("x", 0),
                                         .in = t.dim("weight", 1),
                                         .out = t.dim("weight", 0),
                                         .x = t.f32("x"),
                                         .x_stride = t.dim("x", 1),
                                         .weight = t.f32("weight"),
                                         .dy = t.f32("dy"),
                                         .dy_stride = t.dim("dy", 1),
                                         .dx = t.f32("dx"),
                                         .dx_stride = t.dim("dx", 1),
                                         .accumulate_dx = t.number("accumulate_dx") != 0,
                                         .dweight = t.f32("dweight")}] { cuda::linear_backward(t.device, args); };
}

Run add_bias(OnDevice& t) {
  return [&t, args = ops::Bias{.rows = t.dim("y", 0), .width = t.dim("y", 1), .bias = t.f32("bias"), .y = t.f32("y")}] {
    cuda::add_bias(t.device, args);
  };
}

Run bias_backward(OnDevice& t) {
  return [&t, args = ops::BiasBackward{
                  .rows = t.dim("dy", 0), .width = t.dim("dy", 1), .dy = t.f32("dy"), .dbias = t.f32("dbias")}] {
    cuda::bias_backward(t.device, args);
  };
}

Run lora_forward(OnDevice& t) {
  return [&t, args = ops::LoraForward{.rows = t.dim("x", 0),
                                      .in = t.dim("a", 1),
                                      .out = t.dim("b", 0),
                                      .rank = t.dim("a", 0),
                                      .scale = t.real("scale"),
                                      .x = t.f32("x"),
                                      .x_stride = t.dim("x", 1),
                                      .a = t.f32("a"),
                                      .b = t.f32("b"),
                                      .xa = t.f32("xa"),
                                      .y = t.f32("y"),
                                      .y_stride = t.dim("y", 1)}] { cuda::lora_forward(t.device, args); };
}

Run lora_backward(OnDevice& t) {
  return [&t, args = ops::LoraBackward{.rows = t.dim("x", 0),
                                       .in = t.dim("a", 1),
                                       .out = t.dim("b", 0),
                                       .rank = t.dim("a", 0),
                                       .scale = t.real("scale"),
                                       .x = t.f32("x"),
                                       .x_stride = t.dim("x", 1),
                                       .a = t.f32("a"),
                                       .b = t.f32("b"),
                                       .xa = t.f32("xa"),
                                       .dy = t.f32("dy"),
                                       .dy_stride = t.dim("dy", 1),
                                       .dxa = t.f32("dxa"),
                                       .dx = t.f32("dx"),
                                       .dx_stride = t.dim("dx", 1),
                                       .da = t.f32("da"),
                                       .db = t.f32("db")}] { cuda::lora_backward(t.device, args); };
}

Run lora_gradient(OnDevice& t) {
  return [&t, args = ops::LoraGradient{.rows = t.dim("x", 0),
                                       .in = t.dim("da", 1),
                                       .out = t.dim("db", 0),
                                       .rank = t.dim("da", 0),
                                       .scale = t.real("scale"),
                                       .x = t.f32("x"),
                                       .x_stride = t.dim("x", 1),
                                       .xa = t.f32("xa"),
                                       .dy = t.f32("dy"),
                                       .dy_stride = t.dim("dy", 1),
                                       .dxa = t.f32("dxa"),
                                       .da = t.f32("da"),
                                       .db = t.f32("db")}] { cuda::lora_gradient(t.device, args); };
}

Run gather_rows(OnDevice& t) {
  return [&t, args = ops::RowMove{.rows = t.elements("index"),
                                  .dim = t.dim("to", 1),
                                  .index = t.i32("index"),
                                  .from = t.f32("from"),
                                  .to = t.f32("to")}] { cuda::gather_rows(t.device, args); };
}

Run scatter_rows(OnDevice& t) {
  return [&t, args = ops::RowMove{.rows = t.elements("index"),
                                  .dim = t.dim("to", 1),
                                  .index = t.i32("index"),
                                  .from = t.f32("from"),
                                  .to = t.f32("to")}] { cuda::scatter_rows(t.device, args); };
}

Run dropout(OnDevice& t) {
  return [&t, args = ops::Dropout{.elements = t.elements("x"),
                                  .probability = t.real("probability"),
                                  .stream = {.seed = static_cast<uint64_t>(t.whole("seed")),
                                             .site = static_cast<RandomSite>(t.whole("site")),
                                             .stream = static_cast<uint64_t>(t.whole("stream"))},
                                  .x = t.f32("x")}] { cuda::dropout(t.device, args); };
}

Run sum_squares(OnDevice& t) {
  return [&t] { cuda::sum_squares(t.device, t.f32("x"), t.elements("x"), t.f64("sum")); };
}

Run adamw(OnDevice& t) {
  const double step = t.number("step");
  return [&t, args = ops::AdamW{.elements = t.elements("parameter"),
                                .parameter = t.f32("parameter"),
                                .first_moment = t.f32("first_moment"),
                                .second_moment = t.f32("second_moment"),
                                .gradient = t.f32("gradient"),
                                .gradient_scale = t.real("gradient_scale"),
                                .learning_rate = t.real("learning_rate"),
                                .beta1 = t.real("beta1"),
                                .beta2 = t.real("beta2"),
                                .epsilon = t.real("epsilon"),
                                .weight_decay = t.real("weight_decay"),
                                .bias_correction1 = static_cast<float>(1 - std::pow(t.number("beta1"), step)),
                                .bias_correction2 = static_cast<float>(1 - std::pow(t.number("beta2"), step))}] {
    cuda::adamw(t.device, args);
  };
}

Run decode_attention(OnDevice& t) {
  const int64_t rows = t.dim("q", 0), steps = t.dim("step_k", 0), kv_dim = t.whole("kv_heads") * t.whole("head_dim");
  std::vector<const float*> step_k, step_v;
  for (int64_t step = 0; step < steps; ++step) {
    step_k.push_back(t.f32("step_k") + step * rows * kv_dim);
    step_v.push_back(t.f32("step_v") + step * rows * kv_dim);
  }
  return [&t, args = ops::DecodeAttention{.rows = rows,
                                          .heads = t.whole("heads"),
                                          .kv_heads = t.whole("kv_heads"),
                                          .head_dim = t.whole("head_dim"),
                                          .scale = 1.0f / std::sqrt(t.real("head_dim")),
                                          .q = t.f32("q"),
                                          .q_stride = t.dim("q", 1),
                                          .prompt_rows = t.dim("prompt_k", 0),
                                          .prompt_k = t.f32("prompt_k"),
                                          .prompt_v = t.f32("prompt_v"),
                                          .steps = steps,
                                          .step_k = t.keep(step_k),
                                          .step_v = t.keep(step_v),
                                          .ancestors = t.i32("ancestors"),
                                          .ancestors_stride = steps,
                                          .out = t.f32("out")}] { cuda::decode_attention(t.device, args); };
}

Run log_sum_exp(OnDevice& t) {
  return [&t, args = cuda::LogSumExp{.rows = 1, .width = t.elements("x"), .x = t.f32("x"), .y = t.f32("y")}] {
    cuda::log_sum_exp(t.device, args);
  };
}

cuda::AttentionForward attention_args(OnDevice& t) {
  const int64_t heads = t.whole("heads"), kv_heads = t.whole("kv_heads"), dim = t.whole("head_dim");
  const std::vector<int32_t>& offsets = t.host("offsets").i32;
  std::vector<int32_t> first, end;
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    first.resize(static_cast<size_t>(offsets[s + 1]), offsets[s]);
    end.resize(static_cast<size_t>(offsets[s + 1]), offsets[s + 1]);
    longest = std::max<int64_t>(longest, offsets[s + 1] - offsets[s]);
  }
  const float* qkv = t.f32("qkv");
  return {.args = {.heads = heads,
                   .kv_heads = kv_heads,
                   .head_dim = dim,
                   .scale = 1.0f / std::sqrt(static_cast<float>(dim)),
                   .window = t.whole("window"),
                   .q = qkv,
                   .k = qkv + heads * dim,
                   .v = qkv + (heads + kv_heads) * dim,
                   .q_stride = t.dim("qkv", 1),
                   .k_stride = t.dim("qkv", 1),
                   .v_stride = t.dim("qkv", 1),
                   .out = t.f32("out"),
                   .log_sum_exp = t.f32("log_sum_exp")},
          .packed = {.rows = t.dim("qkv", 0), .longest = longest, .first_row = t.keep(first), .end_row = t.keep(end)}};
}

Run attention_forward(OnDevice& t) {
  return [&t, args = attention_args(t)] { cuda::attention_forward(t.device, args); };
}

Run attention_backward(OnDevice& t) {
  const int64_t heads = t.whole("heads"), kv_heads = t.whole("kv_heads"), dim = t.whole("head_dim");
  float* dqkv = t.f32("dqkv");
  return [&t, args = cuda::AttentionBackward{.forward = attention_args(t),
                                             .dout = t.f32("dout"),
                                             .dq = dqkv,
                                             .dk = dqkv + heads * dim,
                                             .dv = dqkv + (heads + kv_heads) * dim}] {
    cuda::attention_backward(t.device, args);
  };
}

cuda::Bf16Matrix& bf16_matrix(OnDevice& t, const std::string& name, float factor) {
  return t.keep_object(cuda::Bf16Matrix(
      t.device, {.values = t.f32(name), .out = t.dim(name, 0), .in = t.dim(name, 1), .factor = factor}));
}

std::vector<cuda::Bf16Adapter> bf16_adapters(OnDevice& t) {
  std::vector<cuda::Bf16Adapter> adapters;
  for (int64_t i = 0; i < t.whole("adapters"); ++i) {
    const std::string number = std::to_string(i);
    adapters.push_back({.a = &bf16_matrix(t, "a" + number, 1.0f),
                        .b = &bf16_matrix(t, "b" + number, t.real("scale")),
                        .column = t.whole("column" + number),
                        .xa = t.f32("xa" + number)});
  }
  return adapters;
}

Run bf16_linear_forward(OnDevice& t) {
  const auto* weight = &bf16_matrix(t, "weight", 1.0f);
  return [&t, weight, adapters = bf16_adapters(t)] {
    cuda::bf16_linear_forward(t.device, {.rows = t.dim("x", 0),
                                         .weight = weight,
                                         .adapters = adapters,
                                         .x = t.f32("x"),
                                         .x_stride = t.dim("x", 1),
                                         .y = t.f32("y"),
                                         .y_stride = t.dim("y", 1)});
  };
}

Run bf16_linear_backward(OnDevice& t) {
  const auto* weight = &bf16_matrix(t, "weight", 1.0f);
  return [&t, weight, adapters = bf16_adapters(t)] {
    cuda::bf16_linear_backward(t.device, {.rows = t.dim("dy", 0),
                                          .weight = weight,
                                          .adapters = adapters,
                                          .dy = t.f32("dy"),
                                          .dy_stride = t.dim("dy", 1),
                                          .dx = t.f32("dx"),
                                          .dx_stride = t.dim("dx", 1),
                                          .dxa = t.f32("dxa")});
  };
}

Run rope(OnDevice& t) {
  const int64_t dim = t.whole("head_dim"),
                positions = 1 + *std::max_element(t.host("positions").i32.begin(), t.host("positions").i32.end());
  std::vector<double> frequencies;
  for (int64_t i = 0; i < dim / 2; ++i)
    frequencies.push_back(std::pow(t.number("theta"), -2.0 * static_cast<double>(i) / static_cast<double>(dim)));
  const ops::RopeTable table = ops::make_rope_table(frequencies, positions);
  return [&t, args = cuda::Rope{.rows = t.dim("x", 0),
                                .heads = t.whole("heads"),
                                .head_dim = dim,
                                .positions = t.i32("positions"),
                                .cos = t.keep(table.cos),
                                .sin = t.keep(table.sin),
                                .x = t.f32("x"),
                                .x_stride = t.dim("x", 1),
                                .inverse = t.number("inverse") != 0}] { cuda::rope(t.device, args); };
}

Run swiglu_backward(OnDevice& t) {
  return [&t, args = ops::SwiGluBackward{.rows = t.dim("dact", 0),
                                         .ffn_dim = t.dim("dact", 1),
                                         .gate_up = t.f32("gate_up"),
                                         .dact = t.f32("dact"),
                                         .dgate_up = t.f32("dgate_up")}] { cuda::swiglu_backward(t.device, args); };
}

Run cross_entropy(OnDevice& t) {
  return [&t, args = ops::CrossEntropy{.rows = t.dim("logits", 0),
                                       .vocabulary = t.dim("logits", 1),
                                       .logits = t.f32("logits"),
                                       .targets = t.i32("targets"),
                                       .scale = t.real("scale"),
                                       .row_scales = t.f32("row_scales"),
                                       .losses = t.f64("losses")}] { cuda::cross_entropy(t.device, args); };
}

// ---- clustering: the public steps work on host memory, so the rows are what is on the device beforehand -------------

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

// ---- DCCF
// ------------------------------------------------------------------------------------------------------------

const cuda::DeviceGraph& graph_of(OnDevice& t) {
  const dccf::Graph graph(t.whole("users"), t.whole("items"), t.host("edge_users").i32, t.host("edge_items").i32);
  return t.keep_object(cuda::DeviceGraph(t.device, graph));
}

Run spread(OnDevice& t) {
  const auto* graph = &graph_of(t);
  return [&t, graph,
          args = dccf::Spread{.x = t.f32("x"),
                              .y = t.f32("y"),
                              .dim = t.dim("x", 1),
                              .accumulate = t.host("y").role == Role::accumulated}] {
    cuda::spread(t.device, *graph, args);
  };
}

Run inverse_norms(OnDevice& t) {
  const auto* graph = &graph_of(t);
  return [&t, graph] { cuda::inverse_norms(t.device, *graph, t.f32("x"), t.dim("x", 1), t.f32("result")); };
}

dccf::MaskedForward masked_args(OnDevice& t) {
  return {.e = t.f32("e"),
          .views = {{t.f32("z"), t.f32("inverse_norm_z"), t.f32("h_z"), t.f32("inverse_sum_z")},
                    {t.f32("r"), t.f32("inverse_norm_r"), t.f32("h_r"), t.f32("inverse_sum_r")}},
          .dim = t.dim("e", 1)};
}

Run masked_forward(OnDevice& t) {
  const auto* graph = &graph_of(t);
  return [&t, graph] { cuda::masked_forward(t.device, *graph, masked_args(t)); };
}

Run masked_backward(OnDevice& t) {
  const auto* graph = &graph_of(t);
  return [&t, graph] {
    cuda::masked_backward(t.device, *graph,
                          {.forward = masked_args(t),
                           .dh = {t.f32("dh_z"), t.f32("dh_r")},
                           .dx = {t.f32("dz"), t.f32("dr")},
                           .de = t.f32("de")});
  };
}

Run intents_forward(OnDevice& t) {
  return [&t, args = dccf::IntentsForward{t.dim("e", 0), t.dim("e", 1), t.dim("prototypes", 1), t.f32("e"),
                                          t.f32("prototypes"), t.f32("r")}] { cuda::intents_forward(t.device, args); };
}

Run intents_backward(OnDevice& t) {
  return [&t, args = dccf::IntentsBackward{.rows = t.dim("e", 0),
                                           .dim = t.dim("e", 1),
                                           .intents = t.dim("prototypes", 1),
                                           .e = t.f32("e"),
                                           .prototypes = t.f32("prototypes"),
                                           .dr = t.f32("dr"),
                                           .de = t.f32("de"),
                                           .dprototypes = t.f32("dprototypes")}] {
    cuda::intents_backward(t.device, args);
  };
}

Run rank_loss(OnDevice& t) {
  return [&t] {
    const dccf::RankLossValue value = cuda::rank_loss(
        t.device,
        {.users = t.host("users").i32, .positives = t.host("positives").i32, .negatives = t.host("negatives").i32},
        {.dim = t.dim("final", 1),
         .weight_decay = t.real("weight_decay"),
         .final = t.f32("final"),
         .embedding = t.f32("embedding"),
         .dfinal = t.f32("dfinal"),
         .dembedding = t.f32("dembedding")});
    t.device.upload(t.f64("losses"), &value, sizeof value);
    t.device.synchronize();
  };
}

Run contrast_loss(OnDevice& t) {
  return [&t] {
    const double value = cuda::contrast_loss(t.device, {.nodes = t.host("nodes").i32,
                                                        .dim = t.dim("anchor", 1),
                                                        .temperature = t.real("temperature"),
                                                        .scale = t.real("scale"),
                                                        .anchor = t.f32("anchor"),
                                                        .view = t.f32("view"),
                                                        .danchor = t.f32("danchor"),
                                                        .dview = t.f32("dview")});
    t.device.upload(t.f64("loss"), &value, sizeof value);
    t.device.synchronize();
  };
}

const std::map<std::string, Load>& loads() {
  static const std::map<std::string, Load> table{{"adamw", adamw},
                                                 {"add_bias", add_bias},
                                                 {"assign_rows", assign_rows},
                                                 {"attention_backward", attention_backward},
                                                 {"attention_forward", attention_forward},
                                                 {"bf16_linear_backward", bf16_linear_backward},
                                                 {"bf16_linear_forward", bf16_linear_forward},
                                                 {"bias_backward", bias_backward},
                                                 {"contrast_loss", contrast_loss},
                                                 {"cross_entropy", cross_entropy},
                                                 {"decode_attention", decode_attention},
                                                 {"dropout", dropout},
                                                 {"embedding_backward", embedding_backward},
                                                 {"embedding_forward", embedding_forward},
                                                 {"gather_rows", gather_rows},
                                                 {"head_norm_backward", head_norm_backward},
                                                 {"head_norm_forward", head_norm_forward},
                                                 {"intents_backward", intents_backward},
                                                 {"intents_forward", intents_forward},
                                                 {"inverse_norms", inverse_norms},
                                                 {"linear_backward", linear_backward},
                                                 {"linear_forward", linear_forward},
                                                 {"lloyd_step", lloyd_step},
                                                 {"log_sum_exp", log_sum_exp},
                                                 {"lora_backward", lora_backward},
                                                 {"lora_forward", lora_forward},
                                                 {"lora_gradient", lora_gradient},
                                                 {"masked_backward", masked_backward},
                                                 {"masked_forward", masked_forward},
                                                 {"rank_loss", rank_loss},
                                                 {"residual_decode", residual_decode},
                                                 {"residual_encode", residual_encode},
                                                 {"rmsnorm_backward", rmsnorm_backward},
                                                 {"rmsnorm_forward", rmsnorm_forward},
                                                 {"rope", rope},
                                                 {"scatter_rows", scatter_rows},
                                                 {"spread", spread},
                                                 {"sum_squares", sum_squares},
                                                 {"swiglu_backward", swiglu_backward},
                                                 {"swiglu_forward", swiglu_forward},
                                                 {"unit_rows_backward", unit_rows_backward},
                                                 {"unit_rows_forward", unit_rows_forward}};
  return table;
}

}  // namespace

Backend device_backend(const DeviceBackend& options) {
  return {options.name, [options](const Case& one, Pool&, Tensors& tensors) -> std::function<void()> {
            const auto load = loads().find(one.op);
            if (load == loads().end() || (options.tiny_only && one.scale != Scale::tiny)) return {};
            const auto held = std::make_shared<OnDevice>(one, tensors);
            const Run run = load->second(*held);
            if (!run) return {};
            held->device.synchronize();
            return [held, run] {
              run();
              held->bring_back();
            };
          }};
}

std::set<std::string> ops_with_kernels() {
  std::set<std::string> result;
  for (const auto& [op, load] : loads()) result.insert(op);
  return result;
}

}  // namespace collimate::cases
