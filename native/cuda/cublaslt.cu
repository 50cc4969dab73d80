// The few functions that are used are declared here: the library's header belongs to the toolkit, its ABI is fixed
// since version 11.
//
// 1. cuBLASLt thinks in columns: our rows of c are its columns, so our b is its first operand and our a its second.
#include <algorithm>
#include <vector>

#include "core/dynamic_library.h"
#include "core/failure.h"
#include "cuda/cublaslt.h"

namespace collimate::cuda {

struct CublasLtLibrary {
  explicit CublasLtLibrary(const std::string& path)
      : library(path.empty() ? DynamicLibrary({"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"})
                             : DynamicLibrary({path})) {
    is_usable = library.is_loaded() && bind_all();
  }

  struct HeuristicResult {
    std::array<uint64_t, 8> algorithm;
    size_t workspace_bytes;
    int status;
    float waves;
    int reserved[4];
  };

  DynamicLibrary library;
  bool is_usable = false;
  size_t (*version)() = nullptr;
  int (*create)(void** handle) = nullptr;
  int (*destroy)(void* handle) = nullptr;
  int (*product_create)(void** product, int compute_type, int scale_type) = nullptr;
  int (*product_destroy)(void* product) = nullptr;
  int (*product_set)(void* product, int attribute, const void* value, size_t bytes) = nullptr;
  int (*layout_create)(void** layout, int type, uint64_t rows, uint64_t columns, int64_t stride) = nullptr;
  int (*layout_destroy)(void* layout) = nullptr;
  int (*preference_create)(void** preference) = nullptr;
  int (*preference_destroy)(void* preference) = nullptr;
  int (*preference_set)(void* preference, int attribute, const void* value, size_t bytes) = nullptr;
  int (*heuristic)(void* handle, void* product, void* a, void* b, void* c, void* d, void* preference, int wanted,
                   HeuristicResult* results, int* found) = nullptr;
  int (*check)(void* handle, void* product, void* a, void* b, void* c, void* d, const void* algorithm,
               HeuristicResult* result) = nullptr;
  int (*algorithm_get)(const void* algorithm, int attribute, void* value, size_t bytes, size_t* written) = nullptr;
  int (*multiply)(void* handle, void* product, const void* alpha, const void* a, void* a_layout, const void* b,
                  void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                  const void* algorithm, void* workspace, size_t workspace_bytes, void* stream) = nullptr;

 private:
  bool bind_all() {
    return library.bind(version, "cublasLtGetVersion") && library.bind(create, "cublasLtCreate") &&
           library.bind(destroy, "cublasLtDestroy") && library.bind(product_create, "cublasLtMatmulDescCreate") &&
           library.bind(product_destroy, "cublasLtMatmulDescDestroy") &&
           library.bind(product_set, "cublasLtMatmulDescSetAttribute") &&
           library.bind(layout_create, "cublasLtMatrixLayoutCreate") &&
           library.bind(layout_destroy, "cublasLtMatrixLayoutDestroy") &&
           library.bind(preference_create, "cublasLtMatmulPreferenceCreate") &&
           library.bind(preference_destroy, "cublasLtMatmulPreferenceDestroy") &&
           library.bind(preference_set, "cublasLtMatmulPreferenceSetAttribute") &&
           library.bind(heuristic, "cublasLtMatmulAlgoGetHeuristic") &&
           library.bind(check, "cublasLtMatmulAlgoCheck") &&
           library.bind(algorithm_get, "cublasLtMatmulAlgoConfigGetAttribute") &&
           library.bind(multiply, "cublasLtMatmul");
  }
};

namespace {

// Values of the library's enumerations.
constexpr int kSuccess = 0;
constexpr int kTypeFp32 = 0, kTypeBf16 = 14, kTypeE4m3 = 28, kTypeE5m2 = 29, kComputeFp32 = 68;
constexpr int kTransposeA = 3, kTransposeB = 4, kScaleOfA = 17, kScaleOfB = 18;  // of a product
constexpr int kMaxWorkspace = 1, kReductionMask = 3, kAlignmentOfA = 5;          // of a preference; B, C and D follow A
constexpr int kSplitK = 2, kReduction = 3;                                       // of an algorithm

// What a product is chosen for: rows of activations, or, of a gradient, terms of its sums.
constexpr int64_t kNominalRows = 8192;
constexpr size_t kPlansMax = 4096;  // batches of many lengths make many shapes

void must(int status, const char* what) {
  if (status != kSuccess)
    throw JobFailure(FailureCause::internal, std::string("cuBLASLt: ") + what + " gave status " +
                                                 std::to_string(status) +
                                                 "; COLLIMATE_CUBLASLT=off goes on without it");
}

int64_t alignment_of(const void* address, int64_t row_bytes) {
  const uint64_t bits = reinterpret_cast<uint64_t>(address) | static_cast<uint64_t>(row_bytes) | 16;
  return static_cast<int64_t>(bits & (~bits + 1));
}

template <typename Product>
void* result_of(const Product& g) {
  if (g.c_bf16 != nullptr) return g.c_bf16;
  return g.c;
}
template <typename Product>
int64_t alignment_of_result(const Product& g) {
  return alignment_of(result_of(g), (g.c_bf16 != nullptr ? 2 : 4) * g.ldc);
}

std::string version_text(size_t version) {  // 130002 is 13.0.2
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

}  // namespace

// The product and its operands as the library wants them described.
struct CublasLt::Descriptors {
  Descriptors(const CublasLtLibrary& lt, const Shape& s) : lt_(lt) {
    must(lt.product_create(&product, kComputeFp32, kTypeFp32), "describing a product");
    const int of_first = s.transpose_b ? 1 : 0, of_second = s.transpose_a ? 1 : 0;
    must(lt.product_set(product, kTransposeA, &of_first, sizeof of_first), "describing a product");
    must(lt.product_set(product, kTransposeB, &of_second, sizeof of_second), "describing a product");
    first = layout(s.type_b, s.transpose_b ? s.k : s.n, s.transpose_b ? s.n : s.k, s.ldb);
    second = layout(s.type_a, s.transpose_a ? s.m : s.k, s.transpose_a ? s.k : s.m, s.lda);
    result = layout(s.type_c, s.n, s.m, s.ldc);
  }
  ~Descriptors() {
    for (void* layout : {first, second, result})
      if (layout != nullptr) lt_.layout_destroy(layout);
    if (product != nullptr) lt_.product_destroy(product);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  void* product = nullptr;
  void *first = nullptr, *second = nullptr, *result = nullptr;

 private:
  void* layout(int type, int64_t rows, int64_t columns, int64_t stride) const {
    void* made = nullptr;
    must(lt_.layout_create(&made, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), stride),
         "describing an operand");
    return made;
  }

  const CublasLtLibrary& lt_;
};

struct CublasLt::Plan {
  Plan(const CublasLtLibrary& lt, const Shape& shape) : descriptors(lt, shape) {}
  Descriptors descriptors;
  std::optional<Algorithm> algorithm{};  // none: not a product for the library
};

CublasLt::CublasLt() {
  const LibraryChoice choice("COLLIMATE_CUBLASLT");
  if (choice.is_off) {
    description_ = "own kernels (COLLIMATE_CUBLASLT=off)";
    return;
  }
  auto library = std::make_unique<const CublasLtLibrary>(choice.path);
  std::string problem = library->library.problem();
  if (library->is_usable) {
    const int status = library->create(&handle_);
    if (status == kSuccess) {
      description_ = "cuBLASLt " + version_text(library->version());
      library_ = std::move(library);
      return;
    }
    problem = "cublasLtCreate gave status " + std::to_string(status) + ": too old a driver for version " +
              version_text(library->version()) + "?";
  }
  if (choice.is_required)
    fail_bad_input("COLLIMATE_CUBLASLT=" + choice.text + ": cuBLASLt cannot be used (" + problem +
                   "); install it (libcublas of the CUDA toolkit, or the nvidia-cublas wheel with its lib folder in "
                   "LD_LIBRARY_PATH), or set it to auto or off");
  description_ = "own kernels (" + problem + ")";
}

CublasLt::~CublasLt() {
  plans_.clear();
  if (library_ != nullptr) library_->destroy(handle_);
}

// The first of the library's proposals that adds each sum in one place.
std::optional<CublasLt::Algorithm> CublasLt::choose(const Shape& shape) const {
  const CublasLtLibrary& lt = *library_;
  const Descriptors d(lt, shape);
  void* preference = nullptr;
  must(lt.preference_create(&preference), "making a preference");
  const std::unique_ptr<void, int (*)(void*)> owned(preference, lt.preference_destroy);
  const auto set = [&](int attribute, const auto& value) {
    must(lt.preference_set(preference, attribute, &value, sizeof value), "setting a preference");
  };
  set(kMaxWorkspace, size_t{0});
  set(kReductionMask, uint32_t{0});
  const int64_t alignments[] = {shape.alignment_b, shape.alignment_a, shape.alignment_c, shape.alignment_c};
  for (int i = 0; i < 4; ++i) set(kAlignmentOfA + i, static_cast<uint32_t>(alignments[i]));
  std::vector<CublasLtLibrary::HeuristicResult> proposals(16);
  int found = 0;
  const int status = lt.heuristic(handle_, d.product, d.first, d.second, d.result, d.result, preference,
                                  static_cast<int>(proposals.size()), proposals.data(), &found);
  if (status != kSuccess) return std::nullopt;  // it has none for this shape
  const auto number = [&](const Algorithm& algorithm, int attribute) {
    uint32_t value = 0;
    size_t written = 0;
    must(lt.algorithm_get(&algorithm, attribute, &value, sizeof value, &written), "asking about an algorithm");
    return value;
  };
  for (int i = 0; i < found; ++i) {
    const CublasLtLibrary::HeuristicResult& one = proposals[static_cast<size_t>(i)];
    if (one.status == kSuccess && one.workspace_bytes == 0 && number(one.algorithm, kSplitK) <= 1 &&
        number(one.algorithm, kReduction) == 0)
      return one.algorithm;
  }
  return std::nullopt;
}

const CublasLt::Plan& CublasLt::plan_for(const Shape& shape) {
  if (const auto known = plans_.find(shape); known != plans_.end()) return *known->second;
  Shape nominal = shape;
  (shape.transpose_a ? nominal.k : nominal.m) = kNominalRows;
  if (shape.transpose_a && shape.transpose_b) nominal.ldb = std::max(nominal.ldb, kNominalRows);
  auto chosen = algorithms_.find(nominal);
  if (chosen == algorithms_.end()) chosen = algorithms_.emplace(nominal, choose(nominal)).first;
  auto plan = std::make_unique<Plan>(*library_, shape);
  const Descriptors& d = plan->descriptors;
  if (chosen->second) {
    CublasLtLibrary::HeuristicResult result{};
    const int status =
        library_->check(handle_, d.product, d.first, d.second, d.result, d.result, &*chosen->second, &result);
    if (status == kSuccess && result.workspace_bytes == 0) plan->algorithm = chosen->second;
  }
  if (plans_.size() >= kPlansMax) plans_.clear();
  return *plans_.emplace(shape, std::move(plan)).first->second;
}

struct CublasLt::Operands {
  float alpha = 1.0f;
  const void *a = nullptr, *b = nullptr;
  const float *a_inverse_scale = nullptr, *b_inverse_scale = nullptr;  // on the device, or null
  void* c = nullptr;
};

bool CublasLt::multiply(Device& device, const Shape& shape, const Operands& x) {
  const Plan& plan = plan_for(shape);
  if (!plan.algorithm) return false;
  device.make_current();
  const Descriptors& d = plan.descriptors;
  if (x.a_inverse_scale != nullptr) {
    const auto set = [&](int attribute, const float* scale) {
      must(library_->product_set(d.product, attribute, &scale, sizeof scale), "setting a scale");
    };
    set(kScaleOfA, x.b_inverse_scale);
    set(kScaleOfB, x.a_inverse_scale);
  }
  const float beta = shape.accumulate ? 1.0f : 0.0f;
  const int status = library_->multiply(handle_, d.product, &x.alpha, x.b, d.first, x.a, d.second, &beta, x.c, d.result,
                                        x.c, d.result, &*plan.algorithm, nullptr, 0, device.stream());
  if (status != kSuccess) device.synchronize();  // a lost device says so itself
  must(status, "a product");
#ifndef NDEBUG
  device.synchronize();
#endif
  return true;
}

bool CublasLt::multiply(Device& device, const Bf16Product& g) {
  if (!is_used() || g.k == 0) return false;
  return multiply(device,
                  {.type_a = kTypeBf16,
                   .type_b = kTypeBf16,
                   .type_c = g.c_bf16 ? kTypeBf16 : kTypeFp32,
                   .transpose_a = g.transpose_a,
                   .transpose_b = g.transpose_b,
                   .accumulate = g.accumulate,
                   .m = g.m,
                   .n = g.n,
                   .k = g.k,
                   .lda = g.lda,
                   .ldb = g.ldb,
                   .ldc = g.ldc,
                   .alignment_a = alignment_of(g.a, 2 * g.lda),
                   .alignment_b = alignment_of(g.b, 2 * g.ldb),
                   .alignment_c = alignment_of_result(g)},
                  {.alpha = g.alpha, .a = g.a, .b = g.b, .c = result_of(g)});
}

bool CublasLt::takes(const Fp8Product& g) const {
  const auto is_whole = [](int64_t size) { return size > 0 && size % Fp8Product::kMultiple == 0; };
  return is_used() && is_whole(g.m) && is_whole(g.n) && is_whole(g.k);
}

bool CublasLt::multiply(Device& device, const Fp8Product& g) {
  if (!takes(g)) return false;
  return multiply(device,
                  {.type_a = g.a_format == Fp8Format::e4m3 ? kTypeE4m3 : kTypeE5m2,
                   .type_b = kTypeE4m3,
                   .type_c = g.c_bf16 ? kTypeBf16 : kTypeFp32,
                   .transpose_a = false,
                   .transpose_b = true,
                   .accumulate = false,
                   .m = g.m,
                   .n = g.n,
                   .k = g.k,
                   .lda = g.k,
                   .ldb = g.k,
                   .ldc = g.ldc,
                   .alignment_a = alignment_of(g.a, g.k),
                   .alignment_b = alignment_of(g.b, g.k),
                   .alignment_c = alignment_of_result(g)},
                  {.a = g.a,
                   .b = g.b,
                   .a_inverse_scale = g.a_inverse_scale,
                   .b_inverse_scale = g.b_inverse_scale,
                   .c = result_of(g)});
}

}  // namespace collimate::cuda
