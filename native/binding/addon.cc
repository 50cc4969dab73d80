// The addon's exports. Marshalling only; the same names stand in native/worker/addon.ts.
#include <napi.h>

#include <memory>
#include <utility>

#include "binding/errors.h"
#include "binding/native_job.h"
#include "binding/ops.h"
#include "core/accelerator.h"
#include "core/failure.h"
#include "core/numerics_class.h"
#ifdef COLLIMATE_USE_CUDA
#include "cuda/accelerator.h"
#endif

namespace collimate::binding {
namespace {

using ListenerHandle = Napi::External<TcpListener>;

Napi::Value numerics_class_value(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), numerics_class());
}

// useDevice("cpu" | "cuda:N"): for the process, before anything else is asked of the addon.
Napi::Value use_device_of(const Napi::CallbackInfo& info) {
  if (!info[0].IsString()) fail_bad_input("useDevice expects the name of a device");
#ifdef COLLIMATE_USE_CUDA
  cuda::register_devices();
#endif
  use_device(info[0].As<Napi::String>().Utf8Value());
  return info.Env().Undefined();
}

// Of the device in use: {name, architecture, products, freeBytes, totalBytes, utilisation: number or null}; null on the
// processor.
Napi::Value device_in_use(const Napi::CallbackInfo& info) {
  const Accelerator* device = accelerator();
  if (device == nullptr) return info.Env().Null();
  const AcceleratorMemory memory = device->memory();
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("name", Napi::String::New(info.Env(), device->name()));
  object.Set("architecture", Napi::String::New(info.Env(), device->architecture()));
  object.Set("products", Napi::String::New(info.Env(), device->products()));
  object.Set("freeBytes", Napi::Number::New(info.Env(), static_cast<double>(memory.free_bytes)));
  object.Set("totalBytes", Napi::Number::New(info.Env(), static_cast<double>(memory.total_bytes)));
  const std::optional<double> utilisation = device->utilisation();
  object.Set("utilisation", utilisation ? Napi::Number::New(info.Env(), *utilisation) : info.Env().Null());
  return object;
}

// createListener(host) -> {address, handle}; the handle is used up by startJob, or closed when it is collected.
Napi::Value create_listener(const Napi::CallbackInfo& info) {
  if (!info[0].IsString()) fail_bad_input("createListener expects a host");
  auto listener = std::make_unique<TcpListener>(info[0].As<Napi::String>().Utf8Value());
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("address", Napi::String::New(info.Env(), listener->address()));
  object.Set("handle",
             ListenerHandle::New(info.Env(), listener.release(), [](Napi::Env, TcpListener* owned) { delete owned; }));
  return object;
}

// startJob(optionsJson, listener | null, hooks)
Napi::Value start_job(const Napi::CallbackInfo& info) {
  if (!info[0].IsString() || !(info[1].IsNull() || info[1].IsExternal()) || !info[2].IsObject()) {
    fail_bad_input("startJob expects options as JSON, a listener handle or null, and hooks");
  }
  const Json options = Json::parse(info[0].As<Napi::String>().Utf8Value());
  JobStart start;
  start.spec = job_spec_from_json(options);
  start.gang = gang_from_json(options.contains("gang") ? options["gang"] : Json());
  start.listener = take_listener(info[1]);
  return NativeJob::start(info.Env(), std::move(start), info[2].As<Napi::Object>());
}

template <Napi::Value (*body)(const Napi::CallbackInfo&)>
Napi::Value exported(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return body(info); });
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("numericsClass", Napi::Function::New(env, exported<numerics_class_value>));
  exports.Set("useDevice", Napi::Function::New(env, exported<use_device_of>));
  exports.Set("deviceInUse", Napi::Function::New(env, exported<device_in_use>));
  exports.Set("createListener", Napi::Function::New(env, exported<create_listener>));
  exports.Set("startJob", Napi::Function::New(env, exported<start_job>));
  exports.Set("kmeans", Napi::Function::New(env, exported<kmeans_op>));
  exports.Set("residualQuantize", Napi::Function::New(env, exported<residual_quantize_op>));
  exports.Set("residualEncode", Napi::Function::New(env, exported<residual_encode_op>));
  exports.Set("loraForward", Napi::Function::New(env, exported<lora_forward_op>));
  exports.Set("loraBackward", Napi::Function::New(env, exported<lora_backward_op>));
  return exports;
}

}  // namespace
}  // namespace collimate::binding

static Napi::Object init_collimate(Napi::Env env, Napi::Object exports) {
  return collimate::binding::init(env, exports);
}
NODE_API_MODULE(collimate, init_collimate)
