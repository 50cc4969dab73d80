#include "core/dynamic_library.h"

#include <dlfcn.h>

#include <cstdlib>

namespace collimate {

DynamicLibrary::DynamicLibrary(std::initializer_list<std::string> names) {
  for (const std::string& name : names) {
    handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) {
      name_ = name;
      problem_.clear();
      return;
    }
    const char* words = dlerror();
    problem_ += (problem_.empty() ? "" : "; ") + (words != nullptr ? std::string(words) : name + ": not found");
  }
}

void* DynamicLibrary::symbol(const char* name) const { return handle_ == nullptr ? nullptr : dlsym(handle_, name); }

LibraryChoice::LibraryChoice(const char* variable) {
  const char* given = std::getenv(variable);
  text = given == nullptr || *given == '\0' ? "auto" : given;
  is_off = text == "off";
  is_required = !is_off && text != "auto";
  if (is_required && text != "on") path = text;
}

}  // namespace collimate
