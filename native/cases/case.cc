#include "cases/case.h"

#include <cmath>
#include <deque>
#include <numeric>
#include <stdexcept>

#include "core/gemm_bf16.h"
#include "core/json.h"
#include "core/philox.h"
#include "core/safetensors.h"

namespace collimate::cases {
namespace {

constexpr uint64_t kSeed = 7;
// Values of one tensor that are drawn; longer ones repeat them, which saves most of a bench's time. A prime, so that
// rows differ.
constexpr size_t kDrawnMax = 65521;

int64_t product(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

template <typename Draw>
Tensor drawn(Role role, std::vector<int64_t> shape, const Draw& draw) {
  Tensor tensor{.role = role, .shape = std::move(shape)};
  tensor.f32.resize(static_cast<size_t>(product(tensor.shape)));
  for (size_t i = 0; i < tensor.f32.size(); ++i) tensor.f32[i] = i < kDrawnMax ? draw(i) : tensor.f32[i - kDrawnMax];
  return tensor;
}

}  // namespace

int64_t Tensor::elements() const { return product(shape); }

void Tensors::add(const std::string& name, Tensor tensor) {
  if (!tensors_.emplace(name, std::move(tensor)).second) throw std::logic_error("a case has two tensors " + name);
}

Tensor& Tensors::at(const std::string& name) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) throw std::logic_error("a case has no tensor " + name);
  return found->second;
}

float* Tensors::f32(const std::string& name) { return at(name).f32.data(); }
int32_t* Tensors::i32(const std::string& name) { return at(name).i32.data(); }
double* Tensors::f64(const std::string& name) { return at(name).f64.data(); }

Maker& Maker::normal(const std::string& name, std::vector<int64_t> shape, float spread, Role role) {
  const RandomStream stream{.seed = kSeed, .stream = ++stream_};
  tensors.add(name, drawn(role, std::move(shape), [&](size_t i) { return spread * random_normal(stream, i); }));
  return *this;
}

Maker& Maker::uniform(const std::string& name, std::vector<int64_t> shape, float below, Role role) {
  const RandomStream stream{.seed = kSeed, .stream = ++stream_};
  tensors.add(name, drawn(role, std::move(shape), [&](size_t i) { return below * random_uniform(stream, i); }));
  return *this;
}

Maker& Maker::coarse(const std::string& name, std::vector<int64_t> shape, Role role) {
  const RandomStream stream{.seed = kSeed, .stream = ++stream_};
  tensors.add(name, drawn(role, std::move(shape),
                          [&](size_t i) { return std::nearbyint(16.0f * random_normal(stream, i)) / 16.0f; }));
  return *this;
}

Maker& Maker::below(const std::string& name, std::vector<int64_t> shape, int32_t limit) {
  const RandomStream stream{.seed = kSeed, .stream = ++stream_};
  Tensor tensor{.shape = std::move(shape)};
  tensor.i32.resize(static_cast<size_t>(product(tensor.shape)));
  for (size_t i = 0; i < tensor.i32.size(); ++i)
    tensor.i32[i] = static_cast<int32_t>(random_below(stream, i, static_cast<uint32_t>(limit)));
  tensors.add(name, std::move(tensor));
  return *this;
}

Maker& Maker::distinct(const std::string& name, int64_t count, int64_t limit) {
  const auto order = random_permutation({.seed = kSeed, .stream = ++stream_}, limit);
  return integers(name, std::vector<int32_t>(order.begin(), order.begin() + count));
}

Maker& Maker::integers(const std::string& name, std::vector<int32_t> values) {
  const auto count = static_cast<int64_t>(values.size());
  tensors.add(name, {.shape = {count}, .i32 = std::move(values)});
  return *this;
}

Maker& Maker::output(const std::string& name, std::vector<int64_t> shape, Role role) {
  // A value that no test overlooks, should the op not write it.
  tensors.add(name, drawn(role, std::move(shape), [](size_t) { return 1e6f; }));
  return *this;
}

Maker& Maker::integer_output(const std::string& name, std::vector<int64_t> shape) {
  Tensor tensor{.role = Role::output, .shape = std::move(shape)};
  tensor.i32.assign(static_cast<size_t>(product(tensor.shape)), -1);
  tensors.add(name, std::move(tensor));
  return *this;
}

Maker& Maker::double_output(const std::string& name, int64_t count) {
  tensors.add(name, {.role = Role::output, .shape = {count}, .f64 = std::vector<double>(count, 1e6)});
  return *this;
}

double weighted_sum(std::span<const float> x, const Tensor& weights) {
  double sum = 0.0;
  for (size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(x[i]) * static_cast<double>(weights.f32[i]);
  return sum;
}

std::vector<Case> all_cases() {
  std::vector<Case> list;
  add_layer_cases(list);
  add_unit_rows_cases(list);
  add_attention_cases(list);
  add_linear_cases(list);
  add_bf16_cases(list);
  add_training_cases(list);
  add_clustering_cases(list);
  add_dccf_cases(list);
  return list;
}

namespace {

std::vector<Backend>& backend_list() {
  static std::vector<Backend> list{{"cpu", [](const Case& one, Pool& pool, Tensors& tensors) {
                                      if (one.needs_bf16_unit && bf16_unit() == Bf16Unit::none)
                                        return std::function<void()>();
                                      if (one.prepare) one.prepare(pool, tensors);
                                      return std::function<void()>([&] { one.run(pool, tensors); });
                                    }}};
  return list;
}

}  // namespace

const std::vector<Backend>& backends() { return backend_list(); }
void set_backends(std::vector<Backend> list) { backend_list() = std::move(list); }

std::string input_name(const Case& one, const std::string& tensor) { return one.name + ": " + tensor; }
std::string expected_name(const Case& one, const std::string& tensor) { return one.name + ": expected " + tensor; }

std::string tiny_cases_json() {
  Json result = Json::object();
  for (const Case& one : all_cases()) {
    if (one.scale != Scale::tiny) continue;
    const Tensors tensors = one.make();
    Json doubles = Json::array();
    for (const auto& [name, tensor] : tensors.all())
      if (!tensor.f64.empty()) doubles.push_back(name);
    result[one.name] = {{"op", one.op}, {"parameters", one.parameters}, {"doubles", doubles}};
  }
  return result.dump();
}

void write_tiny_inputs(const std::filesystem::path& path) {
  SafetensorsWriter writer;
  writer.set_metadata("cases", tiny_cases_json());
  std::deque<Tensors> kept;
  for (const Case& one : all_cases()) {
    if (one.scale != Scale::tiny) continue;
    for (const auto& [name, tensor] : kept.emplace_back(one.make()).all()) {
      if (tensor.role == Role::output || tensor.role == Role::scratch) continue;
      if (tensor.i32.empty())
        writer.add_f32(input_name(one, name), tensor.shape, tensor.f32);
      else
        writer.add_i32(input_name(one, name), tensor.shape, tensor.i32);
    }
  }
  writer.write(path);
}

}  // namespace collimate::cases
