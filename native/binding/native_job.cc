// The job's thread and its queue to JavaScript.
#include "binding/native_job.h"

#include <utility>
#include <vector>

#include "binding/errors.h"
#include "core/failure.h"

namespace collimate::binding {
namespace {

Napi::FunctionReference hook_of(const Napi::Object& hooks, const char* name) {
  const Napi::Value value = hooks.Get(name);
  if (!value.IsFunction()) fail_bad_input(std::string("hooks.") + name + " is not a function");
  return Napi::Persistent(value.As<Napi::Function>());
}

Napi::FunctionReference optional_hook_of(const Napi::Object& hooks, const char* name) {
  return hooks.Get(name).IsUndefined() ? Napi::FunctionReference() : hook_of(hooks, name);
}

Napi::Value json_to_js(Napi::Env env, const Json& json) {
  const Napi::Object parser = env.Global().Get("JSON").As<Napi::Object>();
  return parser.Get("parse").As<Napi::Function>().Call(parser, {Napi::String::New(env, json.dump())});
}

}  // namespace

std::optional<TcpListener> take_listener(const Napi::Value& handle) {
  if (!handle.IsExternal()) return std::nullopt;
  return std::optional<TcpListener>(std::move(*handle.As<Napi::External<TcpListener>>().Data()));
}

NativeJob::NativeJob(Napi::Env env) : deferred_(Napi::Promise::Deferred::New(env)) {}

NativeJob::~NativeJob() {
  if (thread_.joinable()) thread_.join();
}

Napi::Object NativeJob::start(Napi::Env env, JobStart start, const Napi::Object& hooks) {
  auto job = std::make_shared<NativeJob>(env);
  job->on_step_hook_ = hook_of(hooks, "onStep");
  job->on_log_hook_ = hook_of(hooks, "onLog");
  job->on_checkpoint_hook_ = hook_of(hooks, "onCheckpoint");
  job->on_ready_hook_ = optional_hook_of(hooks, "onReady");
  job->on_parked_hook_ = optional_hook_of(hooks, "onParked");
  if (start.spec.can_regroup()) {
    // Nobody else could know that the job waits.
    if (job->on_parked_hook_.IsEmpty()) fail_bad_input("an elastic job needs the hook onParked");
    job->control_.allow_regrouping();
  }
  job->queue_ = Queue::New(env, "collimate job", 0, 1, job.get());
  job->self_ = job;
  napi_add_env_cleanup_hook(env, on_environment_end, job.get());
  try {
    job->thread_ = std::thread([raw = job.get(), start = std::move(start)]() mutable { raw->run(std::move(start)); });
  } catch (...) {
    // Nothing runs that would settle it: the queue must not keep the process alive.
    napi_remove_env_cleanup_hook(env, on_environment_end, job.get());
    job->queue_closed_ = true;
    job->queue_.Release();
    job->self_ = nullptr;
    throw;
  }

  return handle_of(env, job);
}

Napi::Object NativeJob::handle_of(Napi::Env env, const std::shared_ptr<NativeJob>& job) {
  Napi::Object handle = Napi::Object::New(env);
  handle.Set("promise", job->deferred_.Promise());
  handle.Set("requestControl", Napi::Function::New(env, [job](const Napi::CallbackInfo& info) {
               job->control_.request(info[0].As<Napi::Number>().Uint32Value());
             }));
  handle.Set("abort", Napi::Function::New(env, [job](const Napi::CallbackInfo&) { job->control_.abort(); }));
  handle.Set("park", Napi::Function::New(env, [job](const Napi::CallbackInfo&) { job->control_.park(); }));
  handle.Set("rejoin", Napi::Function::New(env, [job](const Napi::CallbackInfo& info) {
               guarded(info.Env(), [&] { job->rejoin(info); });
             }));
  handle.Set("progress", Napi::Function::New(
                             env, [job](const Napi::CallbackInfo& info) { return job->progress_object(info.Env()); }));
  return handle;
}

void NativeJob::rejoin(const Napi::CallbackInfo& info) {
  if (!info[0].IsString()) fail_bad_input("rejoin expects a gang as JSON, and a listener handle or null");
  NextGang next{.gang = gang_from_json(Json::parse(info[0].As<Napi::String>().Utf8Value())), .listener = std::nullopt};
  control_.check_parked();  // before the listener is used up
  next.listener = take_listener(info[1]);
  control_.rejoin(std::move(next));
}

Napi::Object NativeJob::progress_object(Napi::Env env) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("step", Napi::Number::New(env, static_cast<double>(progress().step.load())));
  object.Set("phase", Napi::String::New(env, job_phase_name(progress().phase.load())));
  object.Set("waitingFor", Napi::Number::New(env, progress().waiting_for.load()));
  return object;
}

void NativeJob::run(JobStart start) {
  JobOutcome outcome;
  std::exception_ptr error;
  try {
    outcome = run_attempt(start.spec, *this, control_, start.gang, std::move(start.listener));
  } catch (...) {
    error = std::current_exception();
  }
  post([this, outcome, error](Napi::Env env) { settle(env, error ? nullptr : &outcome, error); });
  const std::lock_guard lock(queue_mutex_);
  if (!std::exchange(queue_closed_, true)) queue_.Release();
}

void NativeJob::post(Task task) {
  const std::lock_guard lock(queue_mutex_);
  if (queue_closed_) return;
  auto owned = std::make_unique<Task>(std::move(task));
  // The queue has no bound, so this never waits; it is refused only while the environment ends.
  if (queue_.NonBlockingCall(owned.get()) == napi_ok) {
    owned.release();
  } else {
    queue_closed_ = true;
  }
}

void NativeJob::call_js(Napi::Env env, Napi::Function, NativeJob*, Task* task) {
  const std::unique_ptr<Task> owned(task);
  if (static_cast<napi_env>(env) == nullptr) return;
  const Napi::HandleScope scope(env);
  (*owned)(env);
}

void NativeJob::on_environment_end(void* data) {
  auto* job = static_cast<NativeJob*>(data);
  job->control_.abort();
  if (job->thread_.joinable()) job->thread_.join();
}

void NativeJob::call_hook(Napi::Env env, Napi::FunctionReference& hook, const std::vector<napi_value>& args) {
  if (hook_error_ || hook.IsEmpty()) return;
  try {
    hook.Call(env.Undefined(), args);
  } catch (const Napi::Error& error) {
    hook_error_ = error;
    control_.abort();
  }
}

void NativeJob::settle(Napi::Env env, const JobOutcome* outcome, std::exception_ptr error) {
  napi_remove_env_cleanup_hook(env, on_environment_end, this);
  if (thread_.joinable()) thread_.join();
  on_step_hook_.Reset();
  on_log_hook_.Reset();
  on_checkpoint_hook_.Reset();
  on_ready_hook_.Reset();
  on_parked_hook_.Reset();
  if (hook_error_) {
    deferred_.Reject(hook_error_->Value());
  } else if (error) {
    deferred_.Reject(to_js_error(env, error).Value());
  } else {
    deferred_.Resolve(json_to_js(env, job_outcome_to_json(*outcome)));
  }
  hook_error_.reset();
  const std::shared_ptr<NativeJob> last = std::exchange(self_, nullptr);
}

void NativeJob::on_step(int64_t step, int64_t steps_total, const std::map<std::string, double>& metrics) {
  progress().step.store(step);
  post([this, step, steps_total, metrics](Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    for (const auto& [name, value] : metrics) object.Set(name, Napi::Number::New(env, value));
    call_hook(env, on_step_hook_,
              {Napi::Number::New(env, static_cast<double>(step)),
               Napi::Number::New(env, static_cast<double>(steps_total)), object});
  });
}

void NativeJob::on_log(const char* level, const std::string& message) {
  post([this, level = std::string(level), message](Napi::Env env) {
    call_hook(env, on_log_hook_, {Napi::String::New(env, level), Napi::String::New(env, message)});
  });
}

void NativeJob::on_checkpoint(int64_t step, const std::filesystem::path& folder, double seconds) {
  post([this, step, folder = folder.string(), seconds](Napi::Env env) {
    call_hook(env, on_checkpoint_hook_,
              {Napi::Number::New(env, static_cast<double>(step)), Napi::String::New(env, folder),
               Napi::Number::New(env, seconds)});
  });
}

void NativeJob::on_ready(int64_t step) {
  post([this, step](Napi::Env env) {
    call_hook(env, on_ready_hook_, {Napi::Number::New(env, static_cast<double>(step))});
  });
}

void NativeJob::on_parked(int64_t step, ParkReason reason, const std::string& message) {
  post([this, step, reason, message](Napi::Env env) {
    call_hook(env, on_parked_hook_,
              {Napi::Number::New(env, static_cast<double>(step)), Napi::String::New(env, park_reason_name(reason)),
               Napi::String::New(env, message)});
  });
}

}  // namespace collimate::binding
