// Several arrays in the one piece of scratch memory that an op may ask of its device.
#pragma once

#include <cstdint>

namespace collimate::cuda {

// Offsets of arrays side by side, each on a line.
class ScratchLayout {
 public:
  template <typename T>
  int64_t add(int64_t count) {
    const int64_t at = bytes_;
    bytes_ += (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return at;
  }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};
template <typename T>
T* array_at(unsigned char* base, int64_t offset) {
  return reinterpret_cast<T*>(base + offset);
}

}  // namespace collimate::cuda
