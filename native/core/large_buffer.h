// Memory for large arrays: on cache lines, and on huge pages where they are long enough for one.
//
// 1. A tile load that crosses cache lines takes several times as long, and a product that walks down a tall matrix
//    meets a new 4 KiB page with every row.
// 2. A buffer that grows is not filled: what resize() adds has no value until it is written.
// 3. The system may decline huge pages; then the memory is as any other.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <utility>
#include <vector>

namespace collimate {

template <typename T>
struct LargeAllocator {
  using value_type = T;
  static constexpr size_t kLine = 64, kHugePage = size_t{2} << 20;
  LargeAllocator() = default;
  template <typename U>
  LargeAllocator(const LargeAllocator<U>&) {}
  T* allocate(size_t count) {
    const size_t bytes = count * sizeof(T);
    void* memory = ::operator new(bytes, alignment(bytes));
    if (bytes >= kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
    return static_cast<T*>(memory);
  }
  void deallocate(T* values, size_t count) { ::operator delete(values, alignment(count * sizeof(T))); }
  template <typename U>
  void construct(U* at) {
    ::new (static_cast<void*>(at)) U;
  }
  template <typename U, typename... Args>
  void construct(U* at, Args&&... args) {
    ::new (static_cast<void*>(at)) U(std::forward<Args>(args)...);
  }
  bool operator==(const LargeAllocator&) const { return true; }

 private:
  static std::align_val_t alignment(size_t bytes) { return std::align_val_t{bytes >= kHugePage ? kHugePage : kLine}; }
};

template <typename T>
using LargeBuffer = std::vector<T, LargeAllocator<T>>;

}  // namespace collimate
