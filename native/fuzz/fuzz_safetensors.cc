// Any bytes as a safetensors file: refused with a JobFailure, or every tensor that it names can be read to its last
// byte.
#include "core/failure.h"
#include "core/safetensors.h"
#include "fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace collimate;
  const fuzz::InputFile input(data, size);
  try {
    const SafetensorsFile file = SafetensorsFile::open(input.path());
    volatile unsigned sum = 0;
    for (const auto& [name, tensor] : file.tensors()) {
      for (size_t i = 0; i < tensor.bytes; ++i) sum = sum + static_cast<unsigned>(tensor.data[i]);
      try {
        const auto values = file.as_f32(name, tensor.shape);
        if (static_cast<int64_t>(values.size()) != tensor.elements()) __builtin_trap();
      } catch (const JobFailure&) {  // an integer tensor
      }
    }
  } catch (const JobFailure&) {
  }
  return 0;
}
