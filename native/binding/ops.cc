// Marshalling of the single ops: an options object in, a promise of an object of typed arrays out.
//
// 1. Sizes are checked against the arrays on the JavaScript thread; a mismatch is an error with code "bad_input".
// 2. Inputs are copied, so that the caller may change its arrays at once.
#include "binding/ops.h"

#include <cmath>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "binding/errors.h"
#include "core/failure.h"
#include "core/kmeans.h"
#include "core/ops.h"
#include "core/residual_quantizer.h"

namespace collimate::binding {
namespace {

using Finish = std::function<Napi::Value(Napi::Env)>;
using Compute = std::function<Finish(Pool&)>;

class OpWorker : public Napi::AsyncWorker {
 public:
  OpWorker(Napi::Env env, int threads, Compute compute)
      : AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        threads_(threads),
        compute_(std::move(compute)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    // On a thread of its own: library threads are shared, and their floating-point mode must stay as it is.
    try {
      std::thread([this] { compute(); }).join();
    } catch (...) {
      error_ = std::current_exception();  // no thread to be had: the promise must hear of it
    }
  }
  void OnOK() override {
    if (error_) {
      deferred_.Reject(to_js_error(Env(), error_).Value());
    } else {
      deferred_.Resolve(finish_(Env()));
    }
  }

 private:
  void compute() {
    try {
      Pool pool(threads_);
      prepare_compute_thread();
      finish_ = compute_(pool);
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  Napi::Promise::Deferred deferred_;
  int threads_;
  Compute compute_;
  Finish finish_;
  std::exception_ptr error_;
};

// Reads fields of the options object, with errors that name them.
class Options {
 public:
  explicit Options(const Napi::CallbackInfo& info) {
    if (info.Length() != 1 || !info[0].IsObject()) fail_bad_input("expected one options object");
    object_ = info[0].As<Napi::Object>();
  }
  double number(const char* name) const {
    const Napi::Value value = object_.Get(name);
    if (!value.IsNumber() || !std::isfinite(value.As<Napi::Number>().DoubleValue())) {
      fail_bad_input(std::string(name) + " is not a finite number");
    }
    return value.As<Napi::Number>().DoubleValue();
  }
  int64_t count(const char* name) const {
    const double value = number(name);
    if (value < 1 || value > 2147483647.0 || value != std::floor(value)) {
      fail_bad_input(std::string(name) + " is " + std::to_string(value) + "; expected a whole number from 1");
    }
    return static_cast<int64_t>(value);
  }
  uint64_t seed() const {
    const double value = number("seed");
    if (value < 0 || value > 9007199254740991.0 || value != std::floor(value)) {
      fail_bad_input("seed is not a whole number from 0 to 2^53 - 1");
    }
    return static_cast<uint64_t>(value);
  }
  int64_t count_or(const char* name, int64_t otherwise) const { return object_.Has(name) ? count(name) : otherwise; }
  int threads() const {
    const int64_t threads = count_or("threads", 1);
    if (threads > 1024) fail_bad_input("threads is " + std::to_string(threads) + "; expected 1 to 1024");
    return static_cast<int>(threads);
  }
  std::vector<float> floats(const char* name, int64_t expected = -1) const {
    const Napi::Value value = object_.Get(name);
    if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array) {
      fail_bad_input(std::string(name) + " is not a Float32Array");
    }
    const auto array = value.As<Napi::Float32Array>();
    if (expected >= 0 && static_cast<int64_t>(array.ElementLength()) != expected) {
      fail_bad_input(std::string(name) + " has " + std::to_string(array.ElementLength()) + " elements; expected " +
                     std::to_string(expected));
    }
    return {array.Data(), array.Data() + array.ElementLength()};
  }
  // Rows of `dim` floats.
  std::vector<float> rows(const char* name, int64_t dim) const {
    std::vector<float> values = floats(name);
    if (values.empty() || static_cast<int64_t>(values.size()) % dim != 0) {
      fail_bad_input(std::string(name) + " has " + std::to_string(values.size()) +
                     " elements; expected a multiple of " + std::to_string(dim) + ", at least one row");
    }
    return values;
  }

 private:
  Napi::Object object_;
};

Napi::Value to_js(Napi::Env env, const std::vector<float>& values) {
  auto array = Napi::Float32Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}
Napi::Value to_js(Napi::Env env, const std::vector<int32_t>& values) {
  auto array = Napi::Int32Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}
Napi::Value to_js(Napi::Env env, const std::vector<double>& values) {
  auto array = Napi::Float64Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

Napi::Value queue(const Napi::CallbackInfo& info, int threads, Compute compute) {
  auto* worker = new OpWorker(info.Env(), threads, std::move(compute));  // deletes itself when done
  const Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

RowMatrix matrix_of(const std::vector<float>& values, int64_t dim) {
  return {values.data(), static_cast<int64_t>(values.size()) / dim, dim};
}

}  // namespace

Napi::Value kmeans_op(const Napi::CallbackInfo& info) {
  const Options options(info);
  const int64_t dim = options.count("dim");
  const KMeansOptions chosen{
      .clusters = options.count("clusters"), .iterations = options.count("iterations"), .seed = options.seed()};
  return queue(info, options.threads(), [rows = options.rows("rows", dim), dim, chosen](Pool& pool) -> Finish {
    auto result = std::make_shared<KMeansResult>(kmeans(pool, matrix_of(rows, dim), chosen));
    return [result](Napi::Env env) {
      Napi::Object object = Napi::Object::New(env);
      object.Set("centroids", to_js(env, result->centroids));
      object.Set("assignment", to_js(env, result->assignment));
      object.Set("objective", to_js(env, result->objective));
      object.Set("finalObjective", Napi::Number::New(env, result->final_objective));
      object.Set("converged", Napi::Boolean::New(env, result->converged));
      return object;
    };
  });
}

Napi::Value residual_quantize_op(const Napi::CallbackInfo& info) {
  const Options options(info);
  const int64_t dim = options.count("dim");
  const ResidualQuantizerOptions chosen{.levels = options.count("levels"),
                                        .codes = options.count("codes"),
                                        .iterations = options.count("iterations"),
                                        .seed = options.seed()};
  return queue(info, options.threads(), [rows = options.rows("rows", dim), dim, chosen](Pool& pool) -> Finish {
    auto result = std::make_shared<ResidualQuantizer>(residual_quantize(pool, matrix_of(rows, dim), chosen));
    return [result](Napi::Env env) {
      Napi::Object object = Napi::Object::New(env);
      object.Set("centroids", to_js(env, result->centroids));
      object.Set("codes", to_js(env, result->codes));
      object.Set("relativeError", Napi::Number::New(env, result->relative_error));
      return object;
    };
  });
}

Napi::Value residual_encode_op(const Napi::CallbackInfo& info) {
  const Options options(info);
  const int64_t dim = options.count("dim");
  const int64_t levels = options.count("levels");
  const int64_t codes = options.count("codes");
  const int64_t beam = options.count_or("beam", 1);
  return queue(info, options.threads(),
               [rows = options.rows("rows", dim), centroids = options.floats("centroids", levels * codes * dim), dim,
                levels, codes, beam](Pool& pool) -> Finish {
                 const RowMatrix matrix = matrix_of(rows, dim);
                 auto out = std::make_shared<std::vector<int32_t>>(static_cast<size_t>(matrix.rows * levels));
                 residual_encode(pool, matrix, {levels, codes, dim, centroids}, {.beam = beam, .codes = *out});
                 return [out](Napi::Env env) { return to_js(env, *out); };
               });
}

namespace {

struct LoraSizes {
  int64_t rows = 0, in = 0, out = 0, rank = 0;
  float scale = 0.0f;
};

LoraSizes lora_sizes(const Options& options) {
  return {options.count("rows"), options.count("in"), options.count("out"), options.count("rank"),
          static_cast<float>(options.number("scale"))};
}

}  // namespace

Napi::Value lora_forward_op(const Napi::CallbackInfo& info) {
  const Options options(info);
  const LoraSizes s = lora_sizes(options);
  return queue(info, options.threads(),
               [s, x = options.floats("x", s.rows * s.in), weight = options.floats("weight", s.out * s.in),
                a = options.floats("a", s.rank * s.in), b = options.floats("b", s.out * s.rank)](Pool& pool) -> Finish {
                 auto y = std::make_shared<std::vector<float>>(static_cast<size_t>(s.rows * s.out));
                 auto xa = std::make_shared<std::vector<float>>(static_cast<size_t>(s.rows * s.rank));
                 ops::linear_forward(pool, {.rows = s.rows,
                                            .in = s.in,
                                            .out = s.out,
                                            .x = x.data(),
                                            .x_stride = s.in,
                                            .weight = weight.data(),
                                            .y = y->data(),
                                            .y_stride = s.out});
                 ops::lora_forward(pool, {.rows = s.rows,
                                          .in = s.in,
                                          .out = s.out,
                                          .rank = s.rank,
                                          .scale = s.scale,
                                          .x = x.data(),
                                          .x_stride = s.in,
                                          .a = a.data(),
                                          .b = b.data(),
                                          .xa = xa->data(),
                                          .y = y->data(),
                                          .y_stride = s.out});
                 return [y, xa](Napi::Env env) {
                   Napi::Object object = Napi::Object::New(env);
                   object.Set("y", to_js(env, *y));
                   object.Set("xa", to_js(env, *xa));
                   return object;
                 };
               });
}

Napi::Value lora_backward_op(const Napi::CallbackInfo& info) {
  const Options options(info);
  const LoraSizes s = lora_sizes(options);
  return queue(
      info, options.threads(),
      [s, x = options.floats("x", s.rows * s.in), weight = options.floats("weight", s.out * s.in),
       a = options.floats("a", s.rank * s.in), b = options.floats("b", s.out * s.rank),
       xa = options.floats("xa", s.rows * s.rank), dy = options.floats("dy", s.rows * s.out)](Pool& pool) -> Finish {
        struct Gradients {
          std::vector<float> dx, da, db;
        };
        auto g = std::make_shared<Gradients>();
        g->dx.resize(x.size());
        g->da.resize(a.size());
        g->db.resize(b.size());
        std::vector<float> dxa(xa.size());
        ops::linear_backward(pool, {.rows = s.rows,
                                    .in = s.in,
                                    .out = s.out,
                                    .x = x.data(),
                                    .x_stride = s.in,
                                    .weight = weight.data(),
                                    .dy = dy.data(),
                                    .dy_stride = s.out,
                                    .dx = g->dx.data(),
                                    .dx_stride = s.in});
        ops::lora_backward(pool, {.rows = s.rows,
                                  .in = s.in,
                                  .out = s.out,
                                  .rank = s.rank,
                                  .scale = s.scale,
                                  .x = x.data(),
                                  .x_stride = s.in,
                                  .a = a.data(),
                                  .b = b.data(),
                                  .xa = xa.data(),
                                  .dy = dy.data(),
                                  .dy_stride = s.out,
                                  .dxa = dxa.data(),
                                  .dx = g->dx.data(),
                                  .dx_stride = s.in,
                                  .da = g->da.data(),
                                  .db = g->db.data()});
        return [g](Napi::Env env) {
          Napi::Object object = Napi::Object::New(env);
          object.Set("dx", to_js(env, g->dx));
          object.Set("da", to_js(env, g->da));
          object.Set("db", to_js(env, g->db));
          return object;
        };
      });
}

}  // namespace collimate::binding
