// collimate-native: runs a job without Node, or prints the machine's numerics class.
//
// 1. It calls the very function that the addon calls (run_attempt).
// 2. Standard output is NDJSON: one object an event, the result or the failure last.
// 3. Exit status: 0 done, 1 the job failed, 2 wrong usage. SIGINT and SIGTERM ask for a checkpoint and a stop.
#include <csignal>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <mutex>
#include <string>
#include <vector>

#include "core/accelerator.h"
#include "core/atomic_file.h"
#include "core/failure.h"
#include "core/job_session.h"
#include "core/numerics_class.h"
#ifdef COLLIMATE_USE_CUDA
#include "cuda/accelerator.h"
#endif

namespace {

using collimate::Json;

constexpr const char* kUsage =
    "usage: collimate-native class [--device cpu|cuda:N]\n"
    "       collimate-native run job.json [--threads N] [--device cpu|cuda:N]\n"
    "\n"
    "job.json: {\"kind\", \"recipe\", \"inputs\": {name: path}, \"outputDir\", \"scratchDir\", \"resumeDir\"?,\n"
    "           \"checkpointIntervalSteps\"?, \"stopStep\"?, \"threads\"?,\n"
    "           \"gang\"?: {\"rank\", \"world\", \"generation\", \"addresses\": [\"host:port\"], \"listen\": "
    "\"host:port\"}}\n";

volatile std::sig_atomic_t stop_requested = 0;

void on_signal(int) { stop_requested = 1; }

class ConsoleHost : public collimate::JobHost {
 public:
  explicit ConsoleHost(collimate::JobControl& control) : control_(control) {}

  void on_step(int64_t step, int64_t steps_total, const std::map<std::string, double>& metrics) override {
    print({{"event", "step"}, {"step", step}, {"stepsTotal", steps_total}, {"metrics", metrics}});
  }
  void on_log(const char* level, const std::string& message) override {
    print({{"event", "log"}, {"level", level}, {"message", message}});
  }
  void on_checkpoint(int64_t step, const std::filesystem::path& folder, double seconds) override {
    print({{"event", "checkpoint"}, {"step", step}, {"folder", folder.string()}, {"seconds", seconds}});
  }
  uint32_t take_control() override {
    if (stop_requested != 0) control_.request(collimate::kControlStop);
    return control_.take();
  }
  bool aborted() override { return control_.aborted(); }

  void print(const Json& event) {
    const std::lock_guard lock(mutex_);
    // A message may quote bytes of a file that are no UTF-8; printing it must not fail.
    std::cout << event.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
  }

 private:
  collimate::JobControl& control_;
  std::mutex mutex_;
};

std::optional<collimate::TcpListener> listener_of(const Json& gang) {
  if (gang.is_null()) return std::nullopt;
  const std::string address = gang.value("listen", "");
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) collimate::fail_bad_input("gang.listen is \"" + address + "\"; expected host:port");
  return collimate::TcpListener(address.substr(0, colon), std::stoi(address.substr(colon + 1)));
}

int run(const std::string& path, int threads) {
  collimate::JobControl control;
  ConsoleHost host(control);
  const auto fail = [&](const char* cause, const std::string& message) {
    host.print({{"event", "failed"}, {"cause", cause}, {"message", message}});
    return 1;
  };
  try {
    const Json job = Json::parse(collimate::read_text_file(path));
    collimate::JobSpec spec = collimate::job_spec_from_json(job);
    if (threads > 0) spec.threads = threads;
    const Json gang_json = job.contains("gang") ? job["gang"] : Json();
    const auto gang = collimate::gang_from_json(gang_json);
    auto outcome = collimate::run_attempt(spec, host, control, gang, listener_of(gang ? gang_json : Json()));
    Json result = collimate::job_outcome_to_json(outcome);
    result["event"] = "result";
    host.print(result);
    return 0;
  } catch (const collimate::JobFailure& failure) {
    return fail(collimate::failure_cause_name(failure.cause()), failure.what());
  } catch (const Json::exception& error) {
    return fail("bad_input", path + " is not a job file: " + error.what());
  } catch (const std::exception& error) {
    return fail("internal", error.what());
  }
}

int usage(const std::string& problem) {
  std::cerr << "collimate-native: " << problem << "\n" << kUsage;
  return 2;
}

// A whole number from 1, or 0 when the text is none.
int parse_threads(const std::string& text) {
  if (text.empty() || text.size() > 4 || text.find_first_not_of("0123456789") != std::string::npos) return 0;
  return std::stoi(text);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.empty()) return usage("a command is missing");
  if (args[0] == "--help" || args[0] == "-h") {
    std::cout << kUsage;
    return 0;
  }
  if (args[0] != "class" && args[0] != "run") return usage("\"" + args[0] + "\" is not a command");
  const bool runs = args[0] == "run";
  if (runs && args.size() < 2) return usage("run takes a job file");
  int threads = 0;
  std::string device = "cpu";
  for (size_t i = runs ? 2 : 1; i < args.size(); i += 2) {
    const std::string value = i + 1 < args.size() ? args[i + 1] : "";
    if (args[i] == "--device" && !value.empty()) {
      device = value;
    } else if (runs && args[i] == "--threads") {
      threads = parse_threads(value);
      if (threads < 1) return usage("expected --threads and a number from 1");
    } else {
      return usage("\"" + args[i] + "\" is not expected here");
    }
  }
#ifdef COLLIMATE_USE_CUDA
  collimate::cuda::register_devices();
#endif
  try {
    collimate::use_device(device);
    if (!runs) {
      std::cout << collimate::numerics_class() << "\n";
      return 0;
    }
  } catch (const std::exception& error) {
    std::cerr << "collimate-native: " << error.what() << "\n";
    return 1;
  }
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  return run(args[1], threads);
}
