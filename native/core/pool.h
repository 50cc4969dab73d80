// The process's compute pool: fixed work items, handed to threads in any order.
//
// 1. Work is cut into items by shape alone, never by the number of threads; an item writes only its own output. So 1, 2
//    or 3 threads give the same bytes.
// 2. Reductions over items are done by the caller afterwards, in item order or by sum_tree (core/tree_sum.h).
// 3. Every pool thread runs with flush-to-zero and denormals-are-zero set, and library thread counts pinned to one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace collimate {

class Pool {
 public:
  explicit Pool(int threads);  // threads >= 1, the calling thread included
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const;
  // Calls body(item) for item in [0, items); returns when all are done. The first exception thrown is rethrown here.
  void for_each(int64_t items, const std::function<void(int64_t item)>& body);
  // Cuts [0, size) into blocks of `block` (the last may be short) and calls body(begin, end) for each.
  void for_blocks(int64_t size, int64_t block, const std::function<void(int64_t begin, int64_t end)>& body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Sets MXCSR (FTZ, DAZ) and the math library's thread count for the calling thread. Pool threads do it themselves; a
// thread that runs a job calls it once at its start.
void prepare_compute_thread();

}  // namespace collimate
