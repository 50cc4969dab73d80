// Cross-entropy, moves of rows, dropout, sum of squares, AdamW on a device.
#include <cmath>

#include "cases/on_device_case.h"
#include "cuda/ops.h"

namespace collimate::cases {
namespace {

Run gather_rows(OnDevice& t) {
  return [&t, args = ops::RowMove{.rows = t.elements("index"),
                                  .dim = t.dim("to", 1),
                                  .index = t.i32("index"),
                                  .from = t.f32("from"),
                                  .to = t.f32("to")}] { cuda::gather_rows(t.device, args); };
}

Run scatter_rows(OnDevice& t) {
  return [&t, args = ops::RowMove{.rows = t.elements("index"),
                                  .dim = t.dim("to", 1),
                                  .index = t.i32("index"),
                                  .from = t.f32("from"),
                                  .to = t.f32("to")}] { cuda::scatter_rows(t.device, args); };
}

Run copy_rows(OnDevice& t) {
  return [&t, args = ops::RowCopy{.rows = t.dim("from", 0),
                                  .dim = t.whole("dim"),
                                  .from = t.f32("from"),
                                  .from_stride = t.dim("from", 1),
                                  .to_row = t.i32("to_row"),
                                  .to = t.f32("to"),
                                  .to_stride = t.dim("to", 1)}] { cuda::copy_rows(t.device, args); };
}

Run add_rows(OnDevice& t) {
  return [&t, args = ops::RowSum{.rows = t.dim("to", 0),
                                 .dim = t.dim("to", 1),
                                 .left_out = t.i32("left_out"),
                                 .from = t.f32("from"),
                                 .to = t.f32("to")}] { cuda::add_rows(t.device, args); };
}

Run dropout(OnDevice& t) {
  return [&t, args = ops::Dropout{.elements = t.elements("x"),
                                  .probability = t.real("probability"),
                                  .stream = {.seed = static_cast<uint64_t>(t.whole("seed")),
                                             .site = static_cast<RandomSite>(t.whole("site")),
                                             .stream = static_cast<uint64_t>(t.whole("stream"))},
                                  .x = t.f32("x")}] { cuda::dropout(t.device, args); };
}

Run sum_squares(OnDevice& t) {
  return [&t] { cuda::sum_squares(t.device, t.f32("x"), t.elements("x"), t.f64("sum")); };
}

Run adamw(OnDevice& t) {
  const double step = t.number("step");
  return [&t, args = ops::AdamW{.elements = t.elements("parameter"),
                                .parameter = t.f32("parameter"),
                                .first_moment = t.f32("first_moment"),
                                .second_moment = t.f32("second_moment"),
                                .gradient = t.f32("gradient"),
                                .gradient_scale = t.real("gradient_scale"),
                                .learning_rate = t.real("learning_rate"),
                                .beta1 = t.real("beta1"),
                                .beta2 = t.real("beta2"),
                                .epsilon = t.real("epsilon"),
                                .weight_decay = t.real("weight_decay"),
                                .bias_correction1 = static_cast<float>(1 - std::pow(t.number("beta1"), step)),
                                .bias_correction2 = static_cast<float>(1 - std::pow(t.number("beta2"), step))}] {
    cuda::adamw(t.device, args);
  };
}

Run cross_entropy(OnDevice& t) {
  return [&t, args = ops::CrossEntropy{.rows = t.dim("logits", 0),
                                       .vocabulary = t.dim("logits", 1),
                                       .logits = t.f32("logits"),
                                       .targets = t.i32("targets"),
                                       .scale = t.real("scale"),
                                       .row_scales = t.f32("row_scales"),
                                       .losses = t.f64("losses")}] { cuda::cross_entropy(t.device, args); };
}

}  // namespace

void add_training_loads(Loads& table) {
  table.insert({{"adamw", adamw},
                {"add_rows", add_rows},
                {"copy_rows", copy_rows},
                {"cross_entropy", cross_entropy},
                {"dropout", dropout},
                {"gather_rows", gather_rows},
                {"scatter_rows", scatter_rows},
                {"sum_squares", sum_squares}});
}

}  // namespace collimate::cases
