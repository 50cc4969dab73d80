// The one list of op cases: thread tests, parity with PyTorch, gradient checks and benchmarks all run over it.
//
// 1. A case is data: named tensors made from a fixed Philox stream, and named numbers (`parameters`). Whatever runs an
//    op on them, C++ or the reference in test/parity/make_op_fixtures.py, sees the same names and bytes.
// 2. Every op of core/ops.h, core/ops_bf16.h, core/rank/decode_ops.h and core/dccf has a tiny case; a test reads the
//    headers and fails where one is missing.
// 3. `tiny` cases are small enough for a fixture and for finite differences. `bench` cases have a shape of
//    bench/training_case.h (or of the clustering and DCCF benches) and more than one work item a thread.
// A second backend is one more entry of backends(): a name, and a function that makes of a case what runs it there. Ops
// are told by Case::op, operands by the tensors' names. The drivers run all backends; parity holds them to one fixture.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/large_buffer.h"
#include "core/pool.h"

namespace collimate::cases {

enum class Role {
  input,
  output,       // overwritten: its value before the run is rubbish on purpose
  accumulated,  // += : the gradient is what the run has added
  replaced,     // an input whose result takes its place
  scratch,      // given to the op, not looked at
};

// One of the three holds the values; double results are sums that fp32 would blur.
struct Tensor {
  Role role = Role::input;
  std::vector<int64_t> shape;
  LargeBuffer<float> f32{};
  std::vector<int32_t> i32{};
  std::vector<double> f64{};
  int64_t elements() const;
};

class Tensors {
 public:
  void add(const std::string& name, Tensor tensor);
  float* f32(const std::string& name);
  int32_t* i32(const std::string& name);
  double* f64(const std::string& name);
  Tensor& at(const std::string& name);
  const std::map<std::string, Tensor>& all() const { return tensors_; }
  std::map<std::string, Tensor>& all() { return tensors_; }

 private:
  std::map<std::string, Tensor> tensors_;
};

// What a run does at least: multiply-adds count two, an exponential kExpFlop; each array is moved once.
constexpr double kExpFlop = 20;
struct Work {
  double flop = 0, bytes = 0;
  bool bf16_products = false;  // the peak is the bf16 unit's
  bool one_thread = false;     // the op runs on the calling thread
};

// Element i of an input, counted from `first`, has its gradient at element i of another tensor; or, where `width` is
// given, the first `width` columns of rows of one stride have theirs in rows of another.
struct Gradient {
  std::string input, gradient;
  int64_t first = 0;
  int64_t width = 0, stride = 0, gradient_stride = 0;
};

// How finite differences meet the op's gradients.
struct Derivative {
  std::function<double(Pool& pool, Tensors& tensors)> loss{};  // by the forward op, summed in double; reads inputs only
  std::vector<Gradient> of{};
  float step = 1e-2f;
  // Truncation O(step^2) and fp32 noise / step, relative to the largest gradient.
  double tolerance = 2e-3;
};

enum class Scale { tiny, bench };

struct Case {
  std::string op;    // as the interface names it
  std::string name;  // <op>/<what is special>
  Scale scale = Scale::tiny;
  std::map<std::string, double> parameters{};
  bool needs_bf16_unit = false;
  std::function<Tensors()> make{};
  // On the CPU: what is done once for many runs (packing weights), and the run through the public op.
  std::function<void(Pool& pool, Tensors& tensors)> prepare{};
  std::function<void(Pool& pool, Tensors& tensors)> run{};
  Work work{};
  // Of the parity test, relative to the largest value of an output; integers are equal.
  double tolerance = 2e-5;
  const char* why = "fp32 rounding of sums of a few hundred terms";
  Derivative derivative{};  // without a loss: not differentiable, or checked by another case of `op`
};

std::vector<Case> all_cases();

struct Backend {
  std::string name;
  // What runs the case on these tensors, with all that is not the op's own work (packing, uploading) done before it
  // returns. Null: the backend cannot run it (on this machine).
  std::function<std::function<void()>(const Case& one, Pool& pool, Tensors& tensors)> load;
};
const std::vector<Backend>& backends();  // the CPU, unless others were set
void set_backends(std::vector<Backend> list);

// The tensors that the tiny cases start from, with their parameters, for test/parity/make_op_fixtures.py.
void write_tiny_inputs(const std::filesystem::path& path);
// How the tensors of a fixture are named, and its record of what was computed: case -> {op, parameters, doubles}, as
// JSON; `doubles` are the results that are kept in double.
std::string input_name(const Case& one, const std::string& tensor);
std::string expected_name(const Case& one, const std::string& tensor);
std::string tiny_cases_json();

// ---- for the files that define cases ------------------------------------------------------------------------------

// Builds tensors; every call draws from the next stream, so that no two tensors share numbers.
class Maker {
 public:
  // Standard normal times `spread`.
  Maker& normal(const std::string& name, std::vector<int64_t> shape, float spread = 1.0f, Role role = Role::input);
  Maker& uniform(const std::string& name, std::vector<int64_t> shape, float below = 1.0f, Role role = Role::input);
  // Normal, rounded to sixteenths: exact in bf16.
  Maker& coarse(const std::string& name, std::vector<int64_t> shape, Role role = Role::input);
  Maker& below(const std::string& name, std::vector<int64_t> shape, int32_t limit);
  Maker& distinct(const std::string& name, int64_t count, int64_t limit);
  Maker& integers(const std::string& name, std::vector<int32_t> values);
  Maker& output(const std::string& name, std::vector<int64_t> shape, Role role = Role::output);
  Maker& integer_output(const std::string& name, std::vector<int64_t> shape);
  Maker& double_output(const std::string& name, int64_t count);
  Tensors tensors{};

 private:
  uint64_t stream_ = 0;
};

// sum(x * weights) in double.
double weighted_sum(std::span<const float> x, const Tensor& weights);

// Each file's part of the list.
void add_layer_cases(std::vector<Case>& list);
void add_unit_rows_cases(std::vector<Case>& list);
void add_attention_cases(std::vector<Case>& list);
void add_linear_cases(std::vector<Case>& list);
void add_bf16_cases(std::vector<Case>& list);
void add_training_cases(std::vector<Case>& list);
void add_clustering_cases(std::vector<Case>& list);
void add_dccf_cases(std::vector<Case>& list);

}  // namespace collimate::cases
