// The one place where a C++ exception becomes a JavaScript error.
#pragma once

#include <napi.h>

#include <exception>

namespace collimate::binding {

// An Error whose `code` is the failure's cause ("bad_input", "peer_lost", ...), or "aborted". Where
// the failure tells a step, so does the error.
Napi::Error to_js_error(Napi::Env env, std::exception_ptr error);

// Runs body; whatever C++ exception leaves it is thrown as the JavaScript error above.
template <typename Body>
auto guarded(Napi::Env env, Body&& body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js_error(env, std::current_exception());
  }
}

}  // namespace collimate::binding
