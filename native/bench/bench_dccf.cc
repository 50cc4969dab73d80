// Seconds per DCCF epoch and peak memory, on a planted graph or a graph file; one JSON line.
//
// Usage: bench_dccf [name=value ...] with threads, epochs, batch, rows (contrastRowsMax), dim, layers, intents, rate,
// contrast, temperature, decay; graph=<graph.safetensors> replaces the planted graph, out=<file> writes the embeddings.
// The planted graph has users=3000, items=1000, edges=10 a user (equal ones merged) within blocks. Gowalla's size:
// users=50000 items=57000 edges=30 batch=10240 intents=128. Not measured: reading files, checkpoints.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "core/dccf/trainer.h"
#include "core/philox.h"
#include "core/safetensors.h"

namespace collimate {
namespace {

using Arguments = std::map<std::string, std::string>;

double number(const Arguments& arguments, const char* name, double otherwise) {
  const auto found = arguments.find(name);
  return found == arguments.end() ? otherwise : std::atof(found->second.c_str());
}

// `edges` items a user, four fifths of them from the user's own block of 50.
dccf::Graph planted_graph(int64_t users, int64_t items, int64_t edges) {
  std::vector<int32_t> edge_users, edge_items;
  const int64_t blocks = std::max<int64_t>(1, items / 50);
  for (int64_t u = 0; u < users; ++u) {
    std::vector<int32_t> row;
    for (int64_t e = 0; e < edges; ++e) {
      const uint32_t draw = random_u32({.seed = 1, .stream = 1}, u * edges + e);
      const int64_t item = 5 * e < 4 * edges ? (u % blocks) * 50 + draw % 50 : draw % items;
      row.push_back(static_cast<int32_t>(item % items));
    }
    std::sort(row.begin(), row.end());
    row.erase(std::unique(row.begin(), row.end()), row.end());
    for (const int32_t item : row) {
      edge_users.push_back(static_cast<int32_t>(u));
      edge_items.push_back(item);
    }
  }
  return {users, items, edge_users, edge_items};
}

dccf::Graph load_graph(const Arguments& arguments) {
  const auto path = arguments.find("graph");
  if (path == arguments.end())
    return planted_graph(static_cast<int64_t>(number(arguments, "users", 3000)),
                         static_cast<int64_t>(number(arguments, "items", 1000)),
                         static_cast<int64_t>(number(arguments, "edges", 10)));
  const SafetensorsFile file = SafetensorsFile::open(path->second);
  const std::span<const int64_t> counts = file.i64("counts", {2});
  return {counts[0], counts[1], file.i32("users", {-1}), file.i32("items", {-1})};
}

dccf::TrainerOptions options_of(const Arguments& arguments) {
  dccf::TrainerOptions options;
  options.model.dim = static_cast<int64_t>(number(arguments, "dim", 32));
  options.model.layers = static_cast<int64_t>(number(arguments, "layers", 2));
  options.model.intents = static_cast<int64_t>(number(arguments, "intents", 64));
  options.model.contrast_rows_max = static_cast<int64_t>(number(arguments, "rows", 512));
  options.model.contrast_weight = static_cast<float>(number(arguments, "contrast", 0.1));
  options.model.temperature = static_cast<float>(number(arguments, "temperature", 1.0));
  options.model.weight_decay = static_cast<float>(number(arguments, "decay", 2.5e-5));
  options.model.seed = static_cast<uint64_t>(number(arguments, "seed", 1));
  options.epochs = static_cast<int64_t>(number(arguments, "epochs", 3));
  options.batch_size = static_cast<int64_t>(number(arguments, "batch", 2048));
  options.learning_rate = static_cast<float>(number(arguments, "rate", 1e-3));
  return options;
}

void run(const Arguments& arguments) {
  Pool pool(std::max(1, static_cast<int>(number(arguments, "threads", 1))));
  const dccf::Graph graph = load_graph(arguments);
  const dccf::TrainerOptions options = options_of(arguments);
  dccf::Trainer trainer(pool, graph, options);
  const auto start = std::chrono::steady_clock::now();
  dccf::LossValue loss;
  while (!trainer.done()) loss = trainer.run_step();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "{\"bench\":\"dccf\",\"threads\":%d,\"users\":%ld,\"items\":%ld,\"edges\":%ld,\"dim\":%ld,\"layers\":%ld,"
      "\"intents\":%ld,\"batch\":%ld,\"contrast_rows\":%ld,\"rate\":%g,\"epochs\":%ld,\"seconds\":%.3f,"
      "\"epoch_seconds\":%.4f,\"loss\":%.5f,\"loss_rank\":%.5f,\"loss_contrast\":%.4f,\"peak_mb\":%.0f}\n",
      pool.threads(), graph.users(), graph.items(), graph.edges(), options.model.dim, options.model.layers,
      options.model.intents, options.batch_size, options.model.contrast_rows_max, options.learning_rate, options.epochs,
      seconds, seconds / options.epochs, loss.total, loss.rank, loss.contrast, usage.ru_maxrss / 1024.0);
  const auto out = arguments.find("out");
  if (out == arguments.end()) return;
  const std::span<const float> all = trainer.embeddings();
  SafetensorsWriter writer;
  writer.add_f32("users", {graph.users(), options.model.dim}, all.first(graph.users() * options.model.dim));
  writer.add_f32("items", {graph.items(), options.model.dim}, all.last(graph.items() * options.model.dim));
  writer.write(out->second);
}

}  // namespace
}  // namespace collimate

int main(int argc, char** argv) {
  collimate::prepare_compute_thread();
  collimate::Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    if (equals != std::string::npos) arguments[argument.substr(0, equals)] = argument.substr(equals + 1);
  }
  collimate::run(arguments);
}
