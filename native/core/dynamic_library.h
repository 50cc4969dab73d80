// Shared libraries that are looked for when they are needed, because a machine may lack them.
#pragma once

#include <initializer_list>
#include <string>

namespace collimate {

class DynamicLibrary {
 public:
  DynamicLibrary() = default;
  // The first of `names` (or paths) that the loader finds; none if it finds none. It stays loaded until the process
  // ends: such libraries have threads and exit handlers of their own.
  explicit DynamicLibrary(std::initializer_list<std::string> names);

  bool is_loaded() const { return handle_ != nullptr; }
  // What was tried and the loader's words for each; empty when one was found.
  const std::string& problem() const { return problem_; }

  // Null where the library lacks it.
  template <typename Function>
  Function function(const char* name) const {
    return reinterpret_cast<Function>(symbol(name));
  }
  // Sets `to`; a name that is missing is remembered in problem(), and false returned.
  template <typename Function>
  bool bind(Function& to, const char* name) {
    to = function<Function>(name);
    if (to == nullptr) problem_ = name_ + " has no function " + name;
    return to != nullptr;
  }

 private:
  void* symbol(const char* name) const;

  void* handle_ = nullptr;
  std::string name_, problem_;
};

// What an environment variable says of a library that a machine may lack: `auto` (where it is found; also unset or
// empty), `off`, `on` (without it nothing starts), or a path (likewise).
struct LibraryChoice {
  explicit LibraryChoice(const char* variable);
  std::string text;  // as given
  bool is_off = false, is_required = false;
  std::string path;  // empty: its usual names
};

}  // namespace collimate
