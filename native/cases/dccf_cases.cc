// DCCF: passes over the edges of a graph, intents, the two losses.
#include <algorithm>
#include <memory>

#include "cases/case.h"
#include "core/dccf/intents.h"
#include "core/dccf/losses.h"
#include "core/dccf/propagate.h"
#include "core/philox.h"

namespace collimate::cases {
namespace {

constexpr const char* kWhy = "fp32 rounding of sums over a few neighbours or one row";

struct Edges {
  std::vector<int32_t> users, items;
};

struct Shape {
  const char* what;
  Scale scale;
  int64_t users, items, dim;
  int64_t draws = 10;  // of items, a user; the last user and the last item stay without edges

  int64_t nodes() const { return users + items; }
  std::vector<int64_t> rows() const { return {nodes(), dim}; }
  Edges edges() const {
    Edges result;
    for (int64_t u = 0; u + 1 < users; ++u) {
      std::vector<int32_t> row;
      for (int64_t e = 0; e < draws; ++e) {
        const RandomStream stream{.seed = 1, .stream = static_cast<uint64_t>(u)};
        row.push_back(static_cast<int32_t>(random_below(stream, static_cast<uint64_t>(e), items - 1)));
      }
      std::sort(row.begin(), row.end());
      row.erase(std::unique(row.begin(), row.end()), row.end());
      for (const int32_t item : row) {
        result.users.push_back(static_cast<int32_t>(u));
        result.items.push_back(item);
      }
    }
    return result;
  }
  // Neighbour rows met by a pass over all nodes.
  double visits() const { return 2.0 * static_cast<double>(edges().users.size()); }
  std::map<std::string, double> parameters() const {
    return {{"users", static_cast<double>(users)}, {"items", static_cast<double>(items)}};
  }
};

std::shared_ptr<const dccf::Graph> graph_of(const Shape& s) {
  const Edges edges = s.edges();
  return std::make_shared<const dccf::Graph>(s.users, s.items, edges.users, edges.items);
}

Maker with_edges(const Shape& s) {
  Maker make;
  Edges edges = s.edges();
  make.integers("edge_users", std::move(edges.users)).integers("edge_items", std::move(edges.items));
  return make;
}

Case spread(const Shape& s, bool accumulate) {
  const auto graph = graph_of(s);
  const double size = static_cast<double>(s.nodes() * s.dim);
  Case result{.op = "spread",
              .name = std::string("spread/") + s.what + (accumulate ? ", accumulates" : ""),
              .scale = s.scale,
              .parameters = s.parameters(),
              .make =
                  [=] {
                    Maker make = with_edges(s);
                    make.normal("x", s.rows()).normal("transposed", s.rows());
                    if (accumulate) return make.normal("y", s.rows(), 1.0f, Role::accumulated).tensors;
                    return make.output("y", s.rows()).tensors;
                  },
              .run =
                  [=](Pool& pool, Tensors& t) {
                    dccf::spread(pool, *graph,
                                 {.x = t.f32("x"), .y = t.f32("y"), .dim = s.dim, .accumulate = accumulate});
                  },
              .work = {.flop = 2.0 * s.visits() * static_cast<double>(s.dim), .bytes = 8.0 * size},
              .tolerance = 2e-6,
              .why = kWhy};
  // Its own transpose: sum(x * spread(z)) has the gradient spread(x) in z.
  result.derivative = {.loss =
                           [=](Pool& pool, Tensors& t) {
                             LargeBuffer<float> y(static_cast<size_t>(s.nodes() * s.dim));
                             dccf::spread(pool, *graph, {.x = t.f32("transposed"), .y = y.data(), .dim = s.dim});
                             return weighted_sum(y, t.at("x"));
                           },
                       .of = {{.input = "transposed", .gradient = "y"}}};
  return result;
}

Case inverse_norms(const Shape& s) {
  const auto graph = graph_of(s);
  return {.op = "inverse_norms",
          .name = std::string("inverse_norms/") + s.what,
          .scale = s.scale,
          .parameters = s.parameters(),
          .make = [=] { return with_edges(s).normal("x", s.rows()).output("result", {s.nodes()}).tensors; },
          .run = [=](Pool& pool, Tensors& t) { dccf::inverse_norms(pool, *graph, t.f32("x"), s.dim, t.f32("result")); },
          .work = {.flop = 2.0 * static_cast<double>(s.nodes() * s.dim),
                   .bytes = 4.0 * static_cast<double>(s.nodes() * s.dim)},
          .tolerance = 1e-6,
          .why = kWhy};
}

dccf::MaskedForward masked_args(const Shape& s, Tensors& t) {
  return {.e = t.f32("e"),
          .views = {{t.f32("z"), t.f32("inverse_norm_z"), t.f32("h_z"), t.f32("inverse_sum_z")},
                    {t.f32("r"), t.f32("inverse_norm_r"), t.f32("h_r"), t.f32("inverse_sum_r")}},
          .dim = s.dim};
}

// e, z, r and what the forward takes and gives; the latter as `role`.
Maker masked_tensors(const Shape& s, const dccf::Graph& graph, Role role) {
  Maker make = with_edges(s);
  make.normal("e", s.rows()).normal("z", s.rows()).normal("r", s.rows());
  make.normal("inverse_norm_z", {s.nodes()}).normal("inverse_norm_r", {s.nodes()});
  for (const char* name : {"h_z", "h_r"}) make.output(name, s.rows(), role);
  for (const char* name : {"inverse_sum_z", "inverse_sum_r"}) make.output(name, {s.nodes()}, role);
  Pool pool(1);
  dccf::inverse_norms(pool, graph, make.tensors.f32("z"), s.dim, make.tensors.f32("inverse_norm_z"));
  dccf::inverse_norms(pool, graph, make.tensors.f32("r"), s.dim, make.tensors.f32("inverse_norm_r"));
  return make;
}

Case masked_forward(const Shape& s) {
  const auto graph = graph_of(s);
  return {.op = "masked_forward",
          .name = std::string("masked_forward/") + s.what,
          .scale = s.scale,
          .parameters = s.parameters(),
          .make = [=] { return masked_tensors(s, *graph, Role::output).tensors; },
          .run = [=](Pool& pool, Tensors& t) { dccf::masked_forward(pool, *graph, masked_args(s, t)); },
          .work = {.flop = 8.0 * s.visits() * static_cast<double>(s.dim),
                   .bytes = 20.0 * static_cast<double>(s.nodes() * s.dim)},
          .tolerance = 5e-6,
          .why = kWhy};
}

Case masked_backward(const Shape& s) {
  const auto graph = graph_of(s);
  return {.op = "masked_backward",
          .name = std::string("masked_backward/") + s.what,
          .scale = s.scale,
          .parameters = s.parameters(),
          .make =
              [=] {
                Maker make = masked_tensors(s, *graph, Role::input);
                make.normal("dh_z", s.rows()).normal("dh_r", s.rows());
                for (const char* name : {"de", "dz", "dr"}) make.normal(name, s.rows(), 1.0f, Role::accumulated);
                Pool pool(1);
                dccf::masked_forward(pool, *graph, masked_args(s, make.tensors));
                return make.tensors;
              },
          .run =
              [=](Pool& pool, Tensors& t) {
                dccf::masked_backward(pool, *graph,
                                      {.forward = masked_args(s, t),
                                       .dh = {t.f32("dh_z"), t.f32("dh_r")},
                                       .dx = {t.f32("dz"), t.f32("dr")},
                                       .de = t.f32("de")});
              },
          .work = {.flop = 20.0 * s.visits() * static_cast<double>(s.dim),
                   .bytes = 40.0 * static_cast<double>(s.nodes() * s.dim)},
          .tolerance = 5e-6,
          .why = kWhy,
          .derivative = {.loss =
                             [=](Pool& pool, Tensors& t) {
                               Tensors own = t;
                               dccf::inverse_norms(pool, *graph, own.f32("z"), s.dim, own.f32("inverse_norm_z"));
                               dccf::inverse_norms(pool, *graph, own.f32("r"), s.dim, own.f32("inverse_norm_r"));
                               dccf::masked_forward(pool, *graph, masked_args(s, own));
                               return weighted_sum(own.at("h_z").f32, t.at("dh_z")) +
                                      weighted_sum(own.at("h_r").f32, t.at("dh_r"));
                             },
                         .of = {{.input = "e", .gradient = "de"},
                                {.input = "z", .gradient = "dz"},
                                {.input = "r", .gradient = "dr"}}}};
}

struct Intents {
  const char* what;
  Scale scale;
  int64_t rows, dim, intents;
  double product() const { return 2.0 * static_cast<double>(rows * dim * intents); }
  double exps() const { return kExpFlop * static_cast<double>(rows * intents); }
};

void intents_of(Pool& pool, const Intents& s, Tensors& t, float* r) {
  dccf::intents_forward(
      pool,
      {.rows = s.rows, .dim = s.dim, .intents = s.intents, .e = t.f32("e"), .prototypes = t.f32("prototypes"), .r = r});
}

Case intents_forward(const Intents& s) {
  return {.op = "intents_forward",
          .name = std::string("intents_forward/") + s.what,
          .scale = s.scale,
          .make =
              [s] {
                Maker make;
                return make.normal("e", {s.rows, s.dim})
                    .normal("prototypes", {s.dim, s.intents})
                    .output("r", {s.rows, s.dim})
                    .tensors;
              },
          .run = [s](Pool& pool, Tensors& t) { intents_of(pool, s, t, t.f32("r")); },
          .work = {.flop = 2 * s.product() + s.exps(), .bytes = 8.0 * static_cast<double>(s.rows * s.dim)},
          .tolerance = 2e-6,
          .why = kWhy};
}

Case intents_backward(const Intents& s) {
  return {.op = "intents_backward",
          .name = std::string("intents_backward/") + s.what,
          .scale = s.scale,
          .make =
              [s] {
                Maker make;
                return make.normal("e", {s.rows, s.dim})
                    .normal("prototypes", {s.dim, s.intents})
                    .normal("dr", {s.rows, s.dim})
                    .normal("de", {s.rows, s.dim}, 1.0f, Role::accumulated)
                    .normal("dprototypes", {s.dim, s.intents}, 1.0f, Role::accumulated)
                    .tensors;
              },
          .run =
              [s](Pool& pool, Tensors& t) {
                dccf::intents_backward(pool, {.rows = s.rows,
                                              .dim = s.dim,
                                              .intents = s.intents,
                                              .e = t.f32("e"),
                                              .prototypes = t.f32("prototypes"),
                                              .dr = t.f32("dr"),
                                              .de = t.f32("de"),
                                              .dprototypes = t.f32("dprototypes")});
              },
          .work = {.flop = 5 * s.product() + s.exps(), .bytes = 16.0 * static_cast<double>(s.rows * s.dim)},
          .tolerance = 5e-6,
          .why = kWhy,
          .derivative = {.loss =
                             [s](Pool& pool, Tensors& t) {
                               LargeBuffer<float> r(static_cast<size_t>(s.rows * s.dim));
                               intents_of(pool, s, t, r.data());
                               return weighted_sum(r, t.at("dr"));
                             },
                         .of = {{.input = "e", .gradient = "de"}, {.input = "prototypes", .gradient = "dprototypes"}}}};
}

struct Triples {
  const char* what;
  Scale scale;
  int64_t nodes, dim, batch;
};

dccf::RankLossValue rank_loss_of(Pool& pool, const Triples& s, Tensors& t) {
  const auto ids = [&](const char* name) { return t.at(name).i32; };
  return dccf::rank_loss(pool, {.users = ids("users"), .positives = ids("positives"), .negatives = ids("negatives")},
                         {.dim = s.dim,
                          .weight_decay = 0.03f,
                          .final = t.f32("final"),
                          .embedding = t.f32("embedding"),
                          .dfinal = t.f32("dfinal"),
                          .dembedding = t.f32("dembedding")});
}

Case rank_loss(const Triples& s) {
  return {.op = "rank_loss",
          .name = std::string("rank_loss/") + s.what,
          .scale = s.scale,
          .parameters = {{"weight_decay", static_cast<double>(0.03f)}},
          .make =
              [s] {
                Maker make;
                const auto limit = static_cast<int32_t>(s.nodes);
                make.below("users", {s.batch}, limit).below("positives", {s.batch}, limit);
                make.below("negatives", {s.batch}, limit);
                for (const char* name : {"final", "embedding"}) make.normal(name, {s.nodes, s.dim}, 0.5f);
                for (const char* name : {"dfinal", "dembedding"})
                  make.normal(name, {s.nodes, s.dim}, 0.1f, Role::accumulated);
                return make.double_output("losses", 2).tensors;
              },
          .run =
              [s](Pool& pool, Tensors& t) {
                const dccf::RankLossValue value = rank_loss_of(pool, s, t);
                t.f64("losses")[0] = value.rank;
                t.f64("losses")[1] = value.decay;
              },
          .work = {.flop = 24.0 * static_cast<double>(s.batch * s.dim),
                   .bytes = 36.0 * static_cast<double>(s.batch * s.dim)},
          .tolerance = 2e-6,
          .why = kWhy,
          .derivative = {.loss =
                             [s](Pool& pool, Tensors& t) {
                               Tensors own = t;  // the gradients go to waste
                               const dccf::RankLossValue value = rank_loss_of(pool, s, own);
                               return value.rank + value.decay;
                             },
                         .of = {{.input = "final", .gradient = "dfinal"},
                                {.input = "embedding", .gradient = "dembedding"}}}};
}

double contrast_loss_of(Pool& pool, const Triples& s, Tensors& t) {
  return dccf::contrast_loss(pool, {.nodes = t.at("nodes").i32,
                                    .dim = s.dim,
                                    .temperature = 0.5f,
                                    .scale = 4.0f,
                                    .anchor = t.f32("anchor"),
                                    .view = t.f32("view"),
                                    .danchor = t.f32("danchor"),
                                    .dview = t.f32("dview")});
}

Case contrast_loss(const Triples& s) {
  const double scores = static_cast<double>(s.batch * s.batch);
  return {.op = "contrast_loss",
          .name = std::string("contrast_loss/") + s.what,
          .scale = s.scale,
          .parameters = {{"temperature", 0.5}, {"scale", 4.0}},
          .make =
              [s] {
                Maker make;
                make.distinct("nodes", s.batch, s.nodes);
                for (const char* name : {"anchor", "view"}) make.normal(name, {s.nodes, s.dim});
                for (const char* name : {"danchor", "dview"})
                  make.normal(name, {s.nodes, s.dim}, 0.1f, Role::accumulated);
                return make.double_output("loss", 1).tensors;
              },
          .run = [s](Pool& pool, Tensors& t) { *t.f64("loss") = contrast_loss_of(pool, s, t); },
          .work = {.flop = scores * (6.0 * static_cast<double>(s.dim) + kExpFlop),
                   .bytes = 16.0 * static_cast<double>(s.batch * s.dim)},
          .tolerance = 5e-6,
          .why = kWhy,
          .derivative = {.loss =
                             [s](Pool& pool, Tensors& t) {
                               Tensors own = t;
                               return 4.0 * contrast_loss_of(pool, s, own);
                             },
                         .of = {{.input = "anchor", .gradient = "danchor"}, {.input = "view", .gradient = "dview"}}}};
}

}  // namespace

void add_dccf_cases(std::vector<Case>& list) {
  // The planted graph's size in bench_dccf.
  for (const Shape& shape : {Shape{"odd", Scale::tiny, 7, 6, 5, 3}, Shape{"32 wide", Scale::tiny, 3, 3, 32, 2},
                             Shape{"3000 x 1000", Scale::bench, 3000, 1000, 32}}) {
    for (const bool accumulate : {false, true}) list.push_back(spread(shape, accumulate));
    list.push_back(inverse_norms(shape));
    list.push_back(masked_forward(shape));
    list.push_back(masked_backward(shape));
  }
  for (const Intents& shape : {Intents{"odd", Scale::tiny, 13, 5, 7}, Intents{"3000", Scale::bench, 3000, 32, 128}}) {
    list.push_back(intents_forward(shape));
    list.push_back(intents_backward(shape));
  }
  for (const Triples& shape : {Triples{"odd", Scale::tiny, 13, 5, 9}, Triples{"batch", Scale::bench, 4000, 32, 1024}}) {
    list.push_back(rank_loss(shape));
    list.push_back(contrast_loss(shape));
  }
}

}  // namespace collimate::cases
