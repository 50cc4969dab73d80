#include "core/dccf/model.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "core/dccf/intents.h"
#include "core/ops.h"
#include "core/philox.h"

namespace collimate::dccf {
namespace {

constexpr int64_t kElementsPerBlock = 16384;

void fill_normal(std::span<float> values, double deviation, const RandomStream& stream) {
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(deviation) * random_normal(stream, static_cast<uint64_t>(i));
}

double xavier_deviation(int64_t rows, int64_t columns) { return std::sqrt(2.0 / static_cast<double>(rows + columns)); }

template <typename Body>
void for_elements(Pool& pool, size_t size, const Body& body) {
  pool.for_blocks(static_cast<int64_t>(size), kElementsPerBlock, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

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

Model::Model(Pool& pool, const Graph& graph, const ModelOptions& options)
    : pool_(pool), graph_(graph), options_(options), layers_(options.layers) {
  const size_t size = static_cast<size_t>(graph.nodes() * options.dim);
  const size_t nodes = static_cast<size_t>(graph.nodes());
  for (Layer& layer : layers_) {
    for (auto* matrix : {&layer.e, &layer.z, &layer.r, &layer.hz, &layer.hr}) matrix->resize(size);
    for (auto* column : {&layer.norm_z, &layer.norm_r, &layer.inverse_sum_z, &layer.inverse_sum_r})
      column->resize(nodes);
  }
  for (auto* matrix : {&final_, &last_}) matrix->resize(size);
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

MaskedForward Model::masked_args(Layer& layer) const {
  return {.e = layer.e.data(),
          .views = {{layer.z.data(), layer.norm_z.data(), layer.hz.data(), layer.inverse_sum_z.data()},
                    {layer.r.data(), layer.norm_r.data(), layer.hr.data(), layer.inverse_sum_r.data()}},
          .dim = options_.dim};
}

void Model::forward_layer(const Parts& parts, Layer& layer, std::vector<float>& next) {
  const int64_t dim = options_.dim, users = graph_.users();
  spread(pool_, graph_, {.x = layer.e.data(), .y = layer.z.data(), .dim = dim});
  intents_forward(pool_, {users, dim, options_.intents, layer.e.data(), parts.prototypes[0], layer.r.data()});
  intents_forward(pool_, {graph_.items(), dim, options_.intents, layer.e.data() + users * dim, parts.prototypes[1],
                          layer.r.data() + users * dim});
  inverse_norms(pool_, graph_, layer.z.data(), dim, layer.norm_z.data());
  inverse_norms(pool_, graph_, layer.r.data(), dim, layer.norm_r.data());
  masked_forward(pool_, graph_, masked_args(layer));
  for_elements(pool_, next.size(), [&](int64_t i) {
    next[i] = (((layer.z[i] + layer.r[i]) + layer.hz[i]) + layer.hr[i]) + layer.e[i];
    final_[i] += next[i];
  });
}

std::span<const float> Model::forward(std::span<const float> parameters) {
  const int64_t size = graph_.nodes() * options_.dim;
  const float* prototypes = parameters.data() + size;
  const Parts parts{parameters.data(), {prototypes, prototypes + options_.dim * options_.intents}};
  std::copy(parts.embedding, parts.embedding + size, final_.begin());
  if (!layers_.empty()) std::copy(parts.embedding, parts.embedding + size, layers_[0].e.begin());
  for (size_t l = 0; l < layers_.size(); ++l)
    forward_layer(parts, layers_[l], l + 1 < layers_.size() ? layers_[l + 1].e : last_);
  return final_;
}

// InfoNCE(Z, view) for the three views and both sides; adds to dz_, dr_, dhz_, dhr_.
double Model::contrast_layer(const Layer& layer) {
  double loss = 0;
  const struct {
    const float* view;
    float* dview;
  } views[] = {{layer.r.data(), dr_.data()}, {layer.hz.data(), dhz_.data()}, {layer.hr.data(), dhr_.data()}};
  for (const std::vector<int32_t>* nodes : {&contrast_users_, &contrast_items_})
    for (const auto& view : views)
      loss += contrast_loss(pool_, {.nodes = *nodes,
                                    .dim = options_.dim,
                                    .temperature = options_.temperature,
                                    .scale = options_.contrast_weight,
                                    .anchor = layer.z.data(),
                                    .view = view.view,
                                    .danchor = dz_.data(),
                                    .dview = view.dview});
  return loss;
}

// Takes the gradient of the layer's output from dnext_ and leaves that of its input there.
double Model::backward_layer(const Parts& parts, Layer& layer, std::span<float> gradient) {
  const int64_t dim = options_.dim, users = graph_.users();
  for (auto* summand : {&dz_, &dr_, &dhz_, &dhr_}) *summand = dnext_;
  const double contrast = options_.contrast_weight > 0 ? contrast_layer(layer) : 0.0;
  // E feeds the sum directly and the final embedding.
  de_.resize(dnext_.size());
  for_elements(pool_, de_.size(), [&](int64_t i) { de_[i] = dnext_[i] + dfinal_[i]; });
  masked_backward(pool_, graph_,
                  {.forward = masked_args(layer),
                   .dh = {dhz_.data(), dhr_.data()},
                   .dx = {dz_.data(), dr_.data()},
                   .de = de_.data()});
  float* dprototypes = gradient.data() + graph_.nodes() * dim;
  intents_backward(
      pool_, {users, dim, options_.intents, layer.e.data(), parts.prototypes[0], dr_.data(), de_.data(), dprototypes});
  intents_backward(pool_, {graph_.items(), dim, options_.intents, layer.e.data() + users * dim, parts.prototypes[1],
                           dr_.data() + users * dim, de_.data() + users * dim, dprototypes + dim * options_.intents});
  spread(pool_, graph_, {.x = dz_.data(), .y = de_.data(), .dim = dim, .accumulate = true});
  std::swap(de_, dnext_);
  return contrast;
}

LossValue Model::loss_and_gradient(std::span<const float> parameters, const Batch& batch, std::span<float> gradient) {
  forward(parameters);
  const int64_t size = graph_.nodes() * options_.dim, prototypes = options_.dim * options_.intents;
  const Parts parts{parameters.data(), {parameters.data() + size, parameters.data() + size + prototypes}};
  contrast_users_ = first_distinct(batch.users, options_.contrast_rows_max);
  contrast_items_ = first_distinct(batch.positives, options_.contrast_rows_max);

  std::fill(gradient.begin(), gradient.end(), 0.0f);
  dfinal_.assign(size, 0.0f);
  const RankLossValue ranked = rank_loss(pool_, batch,
                                         {.dim = options_.dim,
                                          .weight_decay = options_.weight_decay,
                                          .final = final_.data(),
                                          .embedding = parts.embedding,
                                          .dfinal = dfinal_.data(),
                                          .dembedding = gradient.data()});
  LossValue loss{.rank = ranked.rank, .decay = ranked.decay};
  dnext_ = dfinal_;
  for (size_t l = layers_.size(); l-- > 0;) loss.contrast += backward_layer(parts, layers_[l], gradient);
  for_elements(pool_, size, [&](int64_t i) { gradient[i] += dnext_[i]; });

  const std::span<const float> intents = parameters.last(2 * prototypes);
  loss.decay += options_.intent_weight * ops::sum_squares(pool_, intents);
  for (int64_t i = 0; i < 2 * prototypes; ++i) gradient[size + i] += 2.0f * options_.intent_weight * intents[i];
  loss.total = loss.rank + options_.contrast_weight * loss.contrast + loss.decay;
  return loss;
}

}  // namespace collimate::dccf
