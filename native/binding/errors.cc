// Exceptions to JavaScript errors.
#include "binding/errors.h"

#include <new>
#include <string>

#include "core/failure.h"
#include "core/job.h"

namespace collimate::binding {
namespace {

Napi::Error make(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

}  // namespace

Napi::Error to_js_error(Napi::Env env, std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const JobFailure& failure) {
    Napi::Error error = make(env, failure_cause_name(failure.cause()), failure.what());
    if (failure.step()) error.Set("step", Napi::Number::New(env, static_cast<double>(*failure.step())));
    return error;
  } catch (const JobAborted& aborted) {
    return make(env, "aborted", aborted.what());
  } catch (const std::bad_alloc&) {
    return make(env, "out_of_memory", "the native code ran out of memory");
  } catch (const Json::exception& malformed) {
    return make(env, "bad_input", malformed.what());
  } catch (const std::exception& other) {
    return make(env, "internal", other.what());
  } catch (...) {
    return make(env, "internal", "an unknown exception left the native code");
  }
}

}  // namespace collimate::binding
