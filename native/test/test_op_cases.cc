// Every case of the op list (cases/case.h) on every backend: the same bytes on 1, 2 and 3 threads, PyTorch's results,
// and gradients by finite differences. And the list itself: no op of the interface without cases.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <string>

#include "cases/case.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "fixtures.h"
#include "gradient_check.h"

namespace collimate {
namespace {

using cases::Case;
using cases::Gradient;
using cases::Role;
using cases::Scale;
using cases::Tensor;
using cases::Tensors;

bool is_result(const Tensor& tensor) { return tensor.role != Role::input && tensor.role != Role::scratch; }

template <typename Values>
bool same_bytes(const Values& a, const Values& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0);
}
bool same_bytes(const Tensor& a, const Tensor& b) {
  return same_bytes(a.f32, b.f32) && same_bytes(a.i32, b.i32) && same_bytes(a.f64, b.f64);
}

// Calls body(case, backend) for all cases of all backends; a case that a backend cannot run is skipped.
template <typename Body>
void for_each_case(const Body& body) {
  for (const cases::Backend& backend : cases::backends()) {
    for (const Case& one : cases::all_cases()) {
      CAPTURE(backend.name);
      CAPTURE(one.name);
      body(one, backend);
    }
  }
}

// False when the backend cannot run the case.
bool run_case(const Case& one, const cases::Backend& backend, Pool& pool, Tensors& tensors) {
  const auto run = backend.load(one, pool, tensors);
  if (run) run();
  return static_cast<bool>(run);
}

// Names of the functions that a header declares on a pool, or, in decode_ops.h, on its arguments alone.
std::set<std::string> declared_ops(const std::string& header, const char* first_argument) {
  std::ifstream file(repository_root() / "native" / "core" / header);
  REQUIRE_MESSAGE(file.good(), header);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::regex declaration("\n[A-Za-z]+ ([a-z_0-9]+)\\((" + std::string(first_argument) + ")");
  std::set<std::string> names;
  for (std::sregex_iterator at(text.begin(), text.end(), declaration), end; at != end; ++at) names.insert((*at)[1]);
  return names;
}

std::set<std::string> interface_ops() {
  std::set<std::string> ops = declared_ops("rank/decode_ops.h", "const [A-Z]|std::span<const float> x");
  for (const char* header : {"ops.h", "ops_bf16.h", "dccf/propagate.h", "dccf/intents.h", "dccf/losses.h"})
    ops.merge(declared_ops(header, "Pool& pool"));
  // Of clustering, the single steps.
  ops.insert({"assign_rows", "lloyd_step", "residual_encode", "residual_decode"});
  return ops;
}

// Ops without a gradient of their own: the op whose cases check it, or why there is none.
const std::map<std::string, std::string> kNoGradient{
    {"embedding_forward", "embedding_backward"},
    {"rmsnorm_forward", "rmsnorm_backward"},
    {"head_norm_forward", "head_norm_backward"},
    {"unit_rows_forward", "unit_rows_backward"},
    {"attention_forward", "attention_backward"},
    {"swiglu_forward", "swiglu_backward"},
    {"linear_forward", "linear_backward"},
    {"add_bias", "bias_backward"},
    {"lora_forward", "lora_backward"},
    {"lora_gradient", "lora_backward"},
    {"bf16_linear_forward", "bf16_linear_backward"},
    {"gather_rows", "scatter_rows"},
    {"copy_rows", "decoding is not trained"},
    {"add_rows", "the gradient of a sum is that of its terms"},
    {"inverse_norms", "masked_backward"},
    {"masked_forward", "masked_backward"},
    {"intents_forward", "intents_backward"},
    {"decode_attention", "decoding is not trained"},
    {"log_sum_exp", "decoding is not trained"},
    {"choose_columns", "decoding is not trained"},
    {"sum_squares", "a norm for clipping, behind the gradients"},
    {"adamw", "behind the gradients"},
    {"assign_rows", "codes are discrete"},
    {"lloyd_step", "codes are discrete"},
    {"residual_encode", "codes are discrete"},
    {"residual_decode", "codes are discrete"},
};

// Of an output from the stored one: doubles are stored as two floats, integers must be equal.
double difference_from(const Tensor& tensor, const SafetensorsFile& fixture, const std::string& name) {
  if (!tensor.i32.empty()) {
    const auto expected = fixture.i32(name, tensor.shape);
    return std::equal(expected.begin(), expected.end(), tensor.i32.begin()) ? 0.0 : 1.0;
  }
  if (!tensor.f64.empty()) {
    const auto stored = fixture.f32(name, {2, tensor.elements()});
    double worst = 0.0, largest = 1e-12;
    for (size_t i = 0; i < tensor.f64.size(); ++i) {
      const double exact = static_cast<double>(stored[i]) + static_cast<double>(stored[tensor.f64.size() + i]);
      if (!std::isfinite(tensor.f64[i])) return INFINITY;
      worst = std::max(worst, std::fabs(tensor.f64[i] - exact));
      largest = std::max(largest, std::fabs(exact));
    }
    return worst / largest;
  }
  for (const float value : tensor.f32)
    if (!std::isfinite(value)) return INFINITY;
  const auto stored = fixture.f32(name, tensor.shape);
  return largest_difference(tensor.f32, std::vector<double>(stored.begin(), stored.end()));
}

// Takes the fixture's inputs, which must be those that the case makes. Some come from a forward pass, which rounds
// differently from one instruction set to the next.
void take_inputs(const Case& one, const SafetensorsFile& fixture, Tensors& tensors) {
  for (auto& [name, tensor] : tensors.all()) {
    if (tensor.role == Role::output || tensor.role == Role::scratch) continue;
    CAPTURE(name);
    REQUIRE(difference_from(tensor, fixture, cases::input_name(one, name)) < 1e-5);
    if (!tensor.i32.empty()) continue;
    const auto stored = fixture.f32(cases::input_name(one, name), tensor.shape);
    std::copy(stored.begin(), stored.end(), tensor.f32.begin());
  }
}

// Finite differences of the case's loss against the gradient that `results` hold.
double gradient_difference(const Case& one, const Gradient& of, Pool& pool, const Tensors& original,
                           const Tensors& results) {
  Tensors tensors = original;
  const Tensor& gradient = results.all().at(of.gradient);
  const auto& before = original.all().at(of.gradient).f32;
  auto& input = tensors.at(of.input).f32;
  // Rows side by side, of the input and of its gradient.
  const int64_t width = of.width > 0 ? of.width : static_cast<int64_t>(input.size()) - of.first;
  const int64_t rows = of.width > 0 ? static_cast<int64_t>(input.size()) / of.stride : 1;
  std::vector<float> values, analytic;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = 0; c < width; ++c) {
      const auto at = static_cast<size_t>(i * of.gradient_stride + c);
      values.push_back(input[static_cast<size_t>(of.first + i * of.stride + c)]);
      analytic.push_back(gradient.role == Role::accumulated ? gradient.f32[at] - before[at] : gradient.f32[at]);
    }
  }
  const auto loss = [&] {
    for (int64_t i = 0; i < rows; ++i)
      std::copy_n(values.begin() + i * width, width, input.begin() + of.first + i * of.stride);
    return one.derivative.loss(pool, tensors);
  };
  return gradient_error({.values = values, .analytic = analytic, .loss = loss, .step = one.derivative.step});
}

}  // namespace

TEST_CASE("op cases: every op of the interface has a tiny and a bench case, and no case another op") {
  std::map<std::string, std::set<Scale>> scales;
  std::set<std::string> names;
  for (const Case& one : cases::all_cases()) {
    scales[one.op].insert(one.scale);
    CHECK_MESSAGE(names.insert(one.name).second, "two cases are called " << one.name);
    CHECK_MESSAGE(one.work.flop + one.work.bytes > 0, one.name << " does no work");
  }
  const std::set<std::string> ops = interface_ops();
  for (const std::string& op : ops)
    CHECK_MESSAGE(scales[op].size() == 2, op << " needs a tiny and a bench case in native/cases");
  for (const auto& [op, unused] : scales) CHECK_MESSAGE(ops.count(op) == 1, op << " is no op of the interface");
}

TEST_CASE("op cases: 1, 2 and 3 threads give the same bytes, and inputs stay as they are") {
  for_each_case([](const Case& one, const cases::Backend& backend) {
    const Tensors original = one.make();
    Tensors first;
    for (const int threads : {1, 2, 3}) {
      CAPTURE(threads);
      Pool pool(threads);
      Tensors tensors = original;
      if (!run_case(one, backend, pool, tensors)) return;
      for (const auto& [name, tensor] : tensors.all()) {
        CAPTURE(name);
        if (tensor.role == Role::input) CHECK(same_bytes(tensor, original.all().at(name)));
        if (is_result(tensor) && threads > 1) CHECK(same_bytes(tensor, first.all().at(name)));
      }
      if (threads == 1) first = std::move(tensors);
    }
  });
}

TEST_CASE("op cases: every result equals PyTorch's in double precision") {
  const SafetensorsFile fixture = SafetensorsFile::open(parity_fixture("ops.safetensors"));
  // Ops, sizes and options of the fixture are those of the list, in both directions.
  REQUIRE_MESSAGE(Json::parse(fixture.metadata().at("cases")) == Json::parse(cases::tiny_cases_json()),
                  "the op cases have changed: run test/parity/make_op_fixtures.py");
  Pool pool(2);
  for_each_case([&](const Case& one, const cases::Backend& backend) {
    if (one.scale != Scale::tiny) return;
    Tensors tensors = one.make();
    take_inputs(one, fixture, tensors);
    if (!run_case(one, backend, pool, tensors)) return;
    for (const auto& [name, tensor] : tensors.all()) {
      if (!is_result(tensor)) continue;
      CAPTURE(name);
      INFO("tolerance: ", one.why);
      CHECK(difference_from(tensor, fixture, cases::expected_name(one, name)) <= one.tolerance);
    }
  });
}

TEST_CASE("op cases: every gradient equals finite differences") {
  Pool pool(2);
  std::set<std::string> checked;
  for_each_case([&](const Case& one, const cases::Backend& backend) {
    if (one.scale != Scale::tiny || !one.derivative.loss) return;
    const Tensors original = one.make();
    Tensors results = original;
    checked.insert(one.op);
    if (!run_case(one, backend, pool, results)) return;
    for (const Gradient& of : one.derivative.of) {
      CAPTURE(of.input);
      CHECK(gradient_difference(one, of, pool, original, results) < one.derivative.tolerance);
    }
  });
  for (const std::string& op : interface_ops()) {
    if (checked.count(op) == 1) continue;
    const auto reason = kNoGradient.find(op);
    REQUIRE_MESSAGE(reason != kNoGradient.end(), op << " needs a case with a derivative, or a reason in kNoGradient");
    if (reason->second.find(' ') == std::string::npos) CHECK_MESSAGE(checked.count(reason->second) == 1, op);
  }
}

}  // namespace collimate
