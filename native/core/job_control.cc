// Flags and the hand-over of the next gang.
#include "core/job_control.h"

#include <string>
#include <utility>

#include "core/failure.h"

namespace collimate {

void JobControl::abort() {
  const std::lock_guard lock(mutex_);
  aborted_.store(true);
  cancelled_.store(true);
  if (transport_ != nullptr) transport_->abort();
  changed_.notify_all();
}

void JobControl::attach(Transport* transport) {
  const std::lock_guard lock(mutex_);
  transport_ = transport;
  if (transport_ != nullptr && cancelled_.load()) transport_->abort();
}

void JobControl::park() {
  const std::lock_guard lock(mutex_);
  if (!regroups() || parked_) return;
  park_requested_.store(true);
  cancelled_.store(true);
  if (transport_ != nullptr) transport_->abort();
}

void JobControl::check_parked_locked() const {
  if (!parked_) fail_bad_input("the job is not parked; name its next gang once it has told that it parked, and once");
}

void JobControl::check_parked() {
  const std::lock_guard lock(mutex_);
  check_parked_locked();
}

void JobControl::rejoin(NextGang next) {
  const std::lock_guard lock(mutex_);
  check_parked_locked();
  if (next.gang && !next.listener) {
    fail_bad_input("a gang of " + std::to_string(next.gang->addresses.size()) + " ranks needs a listener");
  }
  // One that was asked for meanwhile meant the gang before.
  flags_.fetch_and(~static_cast<uint32_t>(kControlRegroup));
  parked_ = false;
  next_ = std::move(next);
  changed_.notify_all();
}

void JobControl::begin_parking() {
  const std::lock_guard lock(mutex_);
  parked_ = true;
  flags_.fetch_and(~static_cast<uint32_t>(kControlRegroup));
  park_requested_.store(false);
  cancelled_.store(aborted());
}

std::optional<NextGang> JobControl::wait_for_gang() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return aborted() || next_.has_value(); });
  if (aborted()) return std::nullopt;
  return std::exchange(next_, std::nullopt);
}

}  // namespace collimate
