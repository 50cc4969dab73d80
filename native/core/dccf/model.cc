#include "core/dccf/model.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "core/philox.h"

namespace collimate::dccf {
namespace {

void fill_normal(std::span<float> values, double deviation, const RandomStream& stream) {
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(deviation) * random_normal(stream, static_cast<uint64_t>(i));
}

double xavier_deviation(int64_t rows, int64_t columns) { return std::sqrt(2.0 / static_cast<double>(rows + columns)); }

}  // namespace

struct Model::Parts {
  const float* embedding;
  const float* prototypes[2];  // users, items
};

std::vector<int32_t> first_distinct(std::span<const int32_t> values, int64_t limit) {
  std::vector<int32_t> result;
  std::unordered_set<int32_t> seen;
  for (const int32_t value : values) {
    if (static_cast<int64_t>(result.size()) == limit) break;
    if (seen.insert(value).second) result.push_back(value);
  }
  return result;
}

Model::Model(Passes& passes, const Graph& graph, const ModelOptions& options)
    : passes_(passes), graph_(graph), options_(options), size_(graph.nodes() * options.dim), layers_(options.layers) {
  for (Layer& layer : layers_) {
    layer.e = passes.allocate(size_);
    if (options.intents == 0) continue;
    for (float** matrix : {&layer.z, &layer.r, &layer.hz, &layer.hr}) *matrix = passes.allocate(size_);
    for (float** column : {&layer.norm_z, &layer.norm_r, &layer.inverse_sum_z, &layer.inverse_sum_r})
      *column = passes.allocate(graph.nodes());
  }
  for (float** matrix : {&final_, &last_}) *matrix = passes.allocate(size_);
}

Model::Parts Model::parts_of(const float* parameters) const {
  const float* prototypes = parameters + size_;
  return {parameters, {prototypes, prototypes + options_.dim * options_.intents}};
}

int64_t Model::parameter_count() const { return (graph_.nodes() + 2 * options_.intents) * options_.dim; }

std::vector<float> Model::initial_parameters() const {
  std::vector<float> parameters(parameter_count());
  const std::span<float> all(parameters);
  const int64_t dim = options_.dim, prototypes = dim * options_.intents;
  const int64_t user_size = graph_.users() * dim, item_size = graph_.items() * dim;
  const auto stream = [&](uint64_t part) {
    return RandomStream{.seed = options_.seed, .site = RandomSite::parameter_init, .stream = part};
  };
  fill_normal(all.first(user_size), xavier_deviation(graph_.users(), dim), stream(0));
  fill_normal(all.subspan(user_size, item_size), xavier_deviation(graph_.items(), dim), stream(1));
  fill_normal(all.subspan(user_size + item_size, prototypes), xavier_deviation(dim, options_.intents), stream(2));
  fill_normal(all.last(prototypes), xavier_deviation(dim, options_.intents), stream(3));
  return parameters;
}

MaskedForward Model::masked_args(const Layer& layer) const {
  return {.e = layer.e,
          .views = {{layer.z, layer.norm_z, layer.hz, layer.inverse_sum_z},
                    {layer.r, layer.norm_r, layer.hr, layer.inverse_sum_r}},
          .dim = options_.dim};
}

void Model::forward_layer(const Parts& parts, const Layer& layer, float* next) {
  const int64_t dim = options_.dim, users = graph_.users();
  if (options_.intents == 0) {
    passes_.spread({.x = layer.e, .y = next, .dim = dim});
    return passes_.add(final_, final_, next, size_);
  }
  passes_.spread({.x = layer.e, .y = layer.z, .dim = dim});
  passes_.intents_forward({users, dim, options_.intents, layer.e, parts.prototypes[0], layer.r});
  passes_.intents_forward(
      {graph_.items(), dim, options_.intents, layer.e + users * dim, parts.prototypes[1], layer.r + users * dim});
  passes_.inverse_norms(layer.z, dim, layer.norm_z);
  passes_.inverse_norms(layer.r, dim, layer.norm_r);
  passes_.masked_forward(masked_args(layer));
  passes_.sum_layer({layer.z, layer.r, layer.hz, layer.hr, layer.e, next, final_, size_});
}

const float* Model::run_forward(const Parts& parts) {
  passes_.copy(final_, parts.embedding, size_);
  if (!layers_.empty()) passes_.copy(layers_[0].e, parts.embedding, size_);
  for (size_t l = 0; l < layers_.size(); ++l)
    forward_layer(parts, layers_[l], l + 1 < layers_.size() ? layers_[l + 1].e : last_);
  return final_;
}

std::span<const float> Model::forward(std::span<const float> parameters) {
  return passes_.on_host(run_forward(parts_of(passes_.resident(parameters))), size_);
}

// InfoNCE(Z, view) for the three views and both sides; adds to dz_, dr_, dhz_, dhr_.
double Model::contrast_layer(const Layer& layer) {
  double loss = 0;
  const struct {
    const float* view;
    float* dview;
  } views[] = {{layer.r, dr_}, {layer.hz, dhz_}, {layer.hr, dhr_}};
  for (const std::vector<int32_t>* nodes : {&contrast_users_, &contrast_items_})
    for (const auto& view : views)
      loss += passes_.contrast_loss({.nodes = *nodes,
                                     .dim = options_.dim,
                                     .temperature = options_.temperature,
                                     .scale = options_.contrast_weight,
                                     .anchor = layer.z,
                                     .view = view.view,
                                     .danchor = dz_,
                                     .dview = view.dview});
  return loss;
}

void Model::backward_plain_layer() {
  passes_.copy(de_, dfinal_, size_);
  passes_.spread({.x = dnext_, .y = de_, .dim = options_.dim, .accumulate = true});
  std::swap(de_, dnext_);
}

// Takes the gradient of the layer's output from dnext_ and leaves that of its input there.
double Model::backward_layer(const Parts& parts, const Layer& layer, float* dprototypes) {
  if (options_.intents == 0) {
    backward_plain_layer();
    return 0;
  }
  const int64_t dim = options_.dim, users = graph_.users();
  for (float* summand : {dz_, dr_, dhz_, dhr_}) passes_.copy(summand, dnext_, size_);
  const double contrast = options_.contrast_weight > 0 ? contrast_layer(layer) : 0.0;
  // E feeds the sum directly and the final embedding.
  passes_.add(de_, dnext_, dfinal_, size_);
  passes_.masked_backward({.forward = masked_args(layer), .dh = {dhz_, dhr_}, .dx = {dz_, dr_}, .de = de_});
  passes_.intents_backward({users, dim, options_.intents, layer.e, parts.prototypes[0], dr_, de_, dprototypes});
  passes_.intents_backward({graph_.items(), dim, options_.intents, layer.e + users * dim, parts.prototypes[1],
                            dr_ + users * dim, de_ + users * dim, dprototypes + dim * options_.intents});
  passes_.spread({.x = dz_, .y = de_, .dim = dim, .accumulate = true});
  std::swap(de_, dnext_);
  return contrast;
}

LossValue Model::loss_and_gradient(std::span<const float> parameters, const Batch& batch, std::span<float> gradient) {
  if (dfinal_ == nullptr) {
    for (float** matrix : {&dfinal_, &dnext_, &de_}) *matrix = passes_.allocate(size_);
    if (options_.intents > 0)
      for (float** matrix : {&dz_, &dr_, &dhz_, &dhr_}) *matrix = passes_.allocate(size_);
  }
  const Parts parts = parts_of(passes_.resident(parameters));
  run_forward(parts);
  contrast_users_ = first_distinct(batch.users, options_.contrast_rows_max);
  contrast_items_ = first_distinct(batch.positives, options_.contrast_rows_max);

  float* dparameters = passes_.target(gradient);
  passes_.zero(dfinal_, size_);
  const RankLossValue ranked = passes_.rank_loss(batch, {.dim = options_.dim,
                                                         .weight_decay = options_.weight_decay,
                                                         .final = final_,
                                                         .embedding = parts.embedding,
                                                         .dfinal = dfinal_,
                                                         .dembedding = dparameters});
  LossValue loss{.rank = ranked.rank, .decay = ranked.decay};
  passes_.copy(dnext_, dfinal_, size_);
  for (size_t l = layers_.size(); l-- > 0;) loss.contrast += backward_layer(parts, layers_[l], dparameters + size_);
  passes_.add(dparameters, dparameters, dnext_, size_);

  if (const int64_t prototypes = 2 * options_.dim * options_.intents; prototypes > 0) {
    loss.decay += options_.intent_weight * passes_.sum_squares(parts.prototypes[0], prototypes);
    passes_.add_scaled(dparameters + size_, parts.prototypes[0], 2.0f * options_.intent_weight, prototypes);
  }
  passes_.collect(gradient);
  loss.total = loss.rank + options_.contrast_weight * loss.contrast + loss.decay;
  return loss;
}

}  // namespace collimate::dccf
