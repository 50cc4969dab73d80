// Threads that take item numbers from one shared counter.
//
// 1. A worker joins a batch only while the batch is open; the caller closes it after its own last item and waits for
//    those who joined. So a late waker never touches a finished batch, and never holds the caller up.
// 2. A call from inside an item, or from a second thread while a batch runs, works inline: same items, same bytes.
#include "core/pool.h"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/failure.h"
#include "core/gemm.h"

namespace collimate {
namespace {

thread_local bool inside_item = false;
thread_local bool prepared = false;

void prepare_once() {
  if (!prepared) prepare_compute_thread();
}

// Tries before sleeping: batches follow each other within microseconds, but a spinning thread starves its neighbours.
constexpr int kSpinTurns = 200;

}  // namespace

void prepare_compute_thread() {
  _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
  _MM_SET_DENORMALS_ZERO_MODE(_MM_DENORMALS_ZERO_ON);
  prepare_gemm_thread();
  prepared = true;
}

struct Pool::Impl {
  std::vector<std::thread> workers;
  std::mutex caller_mutex;  // held while a batch runs

  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable left;
  std::atomic<uint64_t> batch{0};  // number of the newest batch
  bool open = false;
  bool quit = false;
  int joined = 0;

  const std::function<void(int64_t)>* body = nullptr;
  int64_t items = 0;
  std::atomic<int64_t> next{0};
  std::exception_ptr error;

  void take_items() {
    inside_item = true;
    for (;;) {
      const int64_t item = next.fetch_add(1, std::memory_order_relaxed);
      if (item >= items) break;
      try {
        (*body)(item);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
        next.store(items, std::memory_order_relaxed);
      }
    }
    inside_item = false;
  }

  void work() {
    prepare_compute_thread();
    uint64_t seen = 0;
    for (;;) {
      for (int turn = 0; turn < kSpinTurns && batch.load(std::memory_order_relaxed) == seen; ++turn) _mm_pause();
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return quit || batch.load(std::memory_order_relaxed) != seen; });
        if (quit) return;
        seen = batch.load(std::memory_order_relaxed);
        if (!open) continue;
        ++joined;
      }
      take_items();
      const std::lock_guard lock(mutex);
      if (--joined == 0) left.notify_one();
    }
  }

  void run_batch(int64_t count, const std::function<void(int64_t)>& work_item) {
    {
      const std::lock_guard lock(mutex);
      body = &work_item;
      items = count;
      next.store(0, std::memory_order_relaxed);
      error = nullptr;
      open = true;
      batch.fetch_add(1, std::memory_order_relaxed);
    }
    wake.notify_all();
    take_items();
    std::unique_lock lock(mutex);
    open = false;
    left.wait(lock, [&] { return joined == 0; });
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
  }

  void dismiss() {
    {
      const std::lock_guard lock(mutex);
      quit = true;
    }
    wake.notify_all();
    for (std::thread& worker : workers) worker.join();
    workers.clear();
  }
};

Pool::Pool(int threads) : impl_(std::make_unique<Impl>()) {
  // Here a processor or a library that cannot serve is an exception; on a worker thread it would end the process.
  prepare_gemm_thread();
  try {
    for (int i = 1; i < threads; ++i) impl_->workers.emplace_back([impl = impl_.get()] { impl->work(); });
  } catch (const std::exception& error) {
    const std::string started = std::to_string(impl_->workers.size() + 1);
    impl_->dismiss();  // a thread that nobody joined would end the process
    throw JobFailure(FailureCause::internal, "expected " + std::to_string(threads) +
                                                 " compute threads, the system gave " + started + " (" + error.what() +
                                                 "); ask for fewer, or raise the limit on threads");
  }
}

Pool::~Pool() { impl_->dismiss(); }

int Pool::threads() const { return static_cast<int>(impl_->workers.size()) + 1; }

void Pool::for_each(int64_t items, const std::function<void(int64_t item)>& body) {
  prepare_once();
  if (items > 1 && !impl_->workers.empty() && !inside_item) {
    const std::unique_lock lock(impl_->caller_mutex, std::try_to_lock);
    if (lock.owns_lock()) {
      impl_->run_batch(items, body);
      return;
    }
  }
  for (int64_t item = 0; item < items; ++item) body(item);
}

void Pool::for_blocks(int64_t size, int64_t block, const std::function<void(int64_t begin, int64_t end)>& body) {
  if (size <= 0) return;
  const int64_t step = std::max<int64_t>(block, 1);
  for_each((size + step - 1) / step, [&](int64_t item) { body(item * step, std::min(size, (item + 1) * step)); });
}

}  // namespace collimate
