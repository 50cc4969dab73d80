// One running job behind a JavaScript handle.
//
// 1. The job runs on its own threads; everything that touches JavaScript is queued to the JavaScript thread, in
//    order, so that the promise settles after the last hook call.
// 2. A hook that throws aborts the job, and the promise is rejected with what it threw.
// 3. When the environment ends first, the job is aborted and joined before anything that it uses goes away.
#pragma once

#include <napi.h>

#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/job_session.h"

namespace collimate::binding {

struct JobStart {
  JobSpec spec;
  std::optional<TcpGang> gang;
  std::optional<TcpListener> listener;
};

// The argument of startJob and rejoin; nothing for null.
std::optional<TcpListener> take_listener(const Napi::Value& handle);

class NativeJob : public JobHost {
 public:
  // Returns {promise, requestControl(flags), abort(), park(), rejoin(gangJson, listener | null), progress()}.
  static Napi::Object start(Napi::Env env, JobStart start, const Napi::Object& hooks);
  explicit NativeJob(Napi::Env env);
  ~NativeJob() override;

  void on_step(int64_t step, int64_t steps_total, const std::map<std::string, double>& metrics) override;
  void on_log(const char* level, const std::string& message) override;
  void on_checkpoint(int64_t step, const std::filesystem::path& folder, double seconds) override;
  uint32_t take_control() override { return control_.take(); }
  bool aborted() override { return control_.aborted(); }
  void on_ready(int64_t step) override;
  void on_parked(int64_t step, ParkReason reason, const std::string& message) override;

 private:
  using Task = std::function<void(Napi::Env)>;
  static void call_js(Napi::Env env, Napi::Function unused, NativeJob* job, Task* task);
  static void on_environment_end(void* job);
  using Queue = Napi::TypedThreadSafeFunction<NativeJob, Task, call_js>;

  static Napi::Object handle_of(Napi::Env env, const std::shared_ptr<NativeJob>& job);
  void rejoin(const Napi::CallbackInfo& info);
  Napi::Object progress_object(Napi::Env env);
  void run(JobStart start);
  void post(Task task);
  void call_hook(Napi::Env env, Napi::FunctionReference& hook, const std::vector<napi_value>& args);
  void settle(Napi::Env env, const JobOutcome* outcome, std::exception_ptr error);

  JobControl control_;
  std::thread thread_;
  Queue queue_;
  std::mutex queue_mutex_;  // hooks come from the job's thread and from its checkpoint thread
  bool queue_closed_ = false;
  Napi::Promise::Deferred deferred_;
  Napi::FunctionReference on_step_hook_;
  Napi::FunctionReference on_log_hook_;
  Napi::FunctionReference on_checkpoint_hook_;
  Napi::FunctionReference on_ready_hook_, on_parked_hook_;  // may be empty
  std::optional<Napi::Error> hook_error_;
  std::shared_ptr<NativeJob> self_;  // until settled
};

}  // namespace collimate::binding
