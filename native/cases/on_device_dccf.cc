// DCCF on a device.
#include "cases/on_device_case.h"
#include "cuda/dccf.h"

namespace collimate::cases {
namespace {

const cuda::DeviceGraph& graph_of(OnDevice& t) {
  const dccf::Graph graph(t.whole("users"), t.whole("items"), t.host("edge_users").i32, t.host("edge_items").i32);
  return t.keep_object(cuda::DeviceGraph(t.device, graph));
}

Run spread(OnDevice& t) {
  const auto* graph = &graph_of(t);
  return [&t, graph,
          args = dccf::Spread{.x = t.f32("x"),
                              .y = t.f32("y"),
                              .dim = t.dim("x", 1),
                              .accumulate = t.host("y").role == Role::accumulated}] {
    cuda::spread(t.device, *graph, args);
  };
}

Run inverse_norms(OnDevice& t) {
  const auto* graph = &graph_of(t);
  return [&t, graph] { cuda::inverse_norms(t.device, *graph, t.f32("x"), t.dim("x", 1), t.f32("result")); };
}

dccf::MaskedForward masked_args(OnDevice& t) {
  return {.e = t.f32("e"),
          .views = {{t.f32("z"), t.f32("inverse_norm_z"), t.f32("h_z"), t.f32("inverse_sum_z")},
                    {t.f32("r"), t.f32("inverse_norm_r"), t.f32("h_r"), t.f32("inverse_sum_r")}},
          .dim = t.dim("e", 1)};
}

Run masked_forward(OnDevice& t) {
  const auto* graph = &graph_of(t);
  return [&t, graph] { cuda::masked_forward(t.device, *graph, masked_args(t)); };
}

Run masked_backward(OnDevice& t) {
  const auto* graph = &graph_of(t);
  return [&t, graph] {
    cuda::masked_backward(t.device, *graph,
                          {.forward = masked_args(t),
                           .dh = {t.f32("dh_z"), t.f32("dh_r")},
                           .dx = {t.f32("dz"), t.f32("dr")},
                           .de = t.f32("de")});
  };
}

Run intents_forward(OnDevice& t) {
  return [&t, args = dccf::IntentsForward{t.dim("e", 0), t.dim("e", 1), t.dim("prototypes", 1), t.f32("e"),
                                          t.f32("prototypes"), t.f32("r")}] { cuda::intents_forward(t.device, args); };
}

Run intents_backward(OnDevice& t) {
  return [&t, args = dccf::IntentsBackward{.rows = t.dim("e", 0),
                                           .dim = t.dim("e", 1),
                                           .intents = t.dim("prototypes", 1),
                                           .e = t.f32("e"),
                                           .prototypes = t.f32("prototypes"),
                                           .dr = t.f32("dr"),
                                           .de = t.f32("de"),
                                           .dprototypes = t.f32("dprototypes")}] {
    cuda::intents_backward(t.device, args);
  };
}

Run rank_loss(OnDevice& t) {
  return [&t] {
    const dccf::RankLossValue value = cuda::rank_loss(
        t.device,
        {.users = t.host("users").i32, .positives = t.host("positives").i32, .negatives = t.host("negatives").i32},
        {.dim = t.dim("final", 1),
         .weight_decay = t.real("weight_decay"),
         .final = t.f32("final"),
         .embedding = t.f32("embedding"),
         .dfinal = t.f32("dfinal"),
         .dembedding = t.f32("dembedding")});
    t.device.upload(t.f64("losses"), &value, sizeof value);
    t.device.synchronize();
  };
}

Run contrast_loss(OnDevice& t) {
  return [&t] {
    const double value = cuda::contrast_loss(t.device, {.nodes = t.host("nodes").i32,
                                                        .dim = t.dim("anchor", 1),
                                                        .temperature = t.real("temperature"),
                                                        .scale = t.real("scale"),
                                                        .anchor = t.f32("anchor"),
                                                        .view = t.f32("view"),
                                                        .danchor = t.f32("danchor"),
                                                        .dview = t.f32("dview")});
    t.device.upload(t.f64("loss"), &value, sizeof value);
    t.device.synchronize();
  };
}

}  // namespace

void add_dccf_loads(Loads& table) {
  table.insert({{"contrast_loss", contrast_loss},
                {"intents_backward", intents_backward},
                {"intents_forward", intents_forward},
                {"inverse_norms", inverse_norms},
                {"masked_backward", masked_backward},
                {"masked_forward", masked_forward},
                {"rank_loss", rank_loss},
                {"spread", spread}});
}

}  // namespace collimate::cases
