// DCCF's loss by the definition, dense and in double: the other side of the gradient check.
#pragma once

#include <cmath>
#include <vector>

#include "core/dccf/graph.h"
#include "core/dccf/model.h"

namespace collimate::dccf {

class ReferenceModel {
 public:
  ReferenceModel(const Graph& graph, const ModelOptions& options) : graph_(graph), options_(options) {}

  // Final embedding [V, d]; keeps the layers for loss().
  std::vector<double> forward(const std::vector<double>& parameters) {
    const int64_t size = graph_.nodes() * options_.dim;
    layers_.clear();
    Matrix e(parameters.begin(), parameters.begin() + size), final = e;
    for (int64_t l = 0; l < options_.layers; ++l) {
      Layer layer;
      layer.z = spread(e);
      if (options_.intents == 0) {
        e = layer.z;
        for (size_t i = 0; i < e.size(); ++i) final[i] += e[i];
        continue;
      }
      layer.r = intents(e, parameters);
      layer.hz = masked(layer.z, e);
      layer.hr = masked(layer.r, e);
      for (size_t i = 0; i < e.size(); ++i) e[i] += layer.z[i] + layer.r[i] + layer.hz[i] + layer.hr[i];
      for (size_t i = 0; i < e.size(); ++i) final[i] += e[i];
      layers_.push_back(layer);
    }
    return final;
  }

  double loss(const std::vector<double>& parameters, const Batch& batch) {
    const Matrix final = forward(parameters);
    double rank = 0, decay = 0, contrast = 0, intents = 0;
    for (int64_t b = 0; b < batch.size(); ++b) {
      const int32_t u = batch.users[b], i = batch.positives[b], j = batch.negatives[b];
      rank += std::log1p(std::exp(dot(final, u, final, j) - dot(final, u, final, i))) / batch.size();
      for (const int32_t node : {u, i, j}) decay += dot(parameters, node, parameters, node);
    }
    for (size_t p = graph_.nodes() * options_.dim; p < parameters.size(); ++p) intents += parameters[p] * parameters[p];
    const auto users = first_distinct(batch.users, options_.contrast_rows_max);
    const auto items = first_distinct(batch.positives, options_.contrast_rows_max);
    for (const Layer& layer : layers_)
      for (const auto* nodes : {&users, &items})
        for (const Matrix* view : {&layer.r, &layer.hz, &layer.hr}) contrast += info_nce(layer.z, *view, *nodes);
    return rank + options_.weight_decay * decay + options_.intent_weight * intents +
           options_.contrast_weight * contrast;
  }

 private:
  using Matrix = std::vector<double>;
  struct Layer {
    Matrix z, r, hz, hr;
  };

  double dot(const Matrix& a, int64_t i, const Matrix& b, int64_t j) const {
    double sum = 0;
    for (int64_t c = 0; c < options_.dim; ++c) sum += a[i * options_.dim + c] * b[j * options_.dim + c];
    return sum;
  }
  double cosine(const Matrix& a, int64_t i, const Matrix& b, int64_t j) const {
    return dot(a, i, b, j) / std::sqrt(dot(a, i, a, i) * dot(b, j, b, j));
  }
  Matrix spread(const Matrix& e) const {
    Matrix z(e.size(), 0.0);
    for (int64_t h = 0; h < graph_.nodes(); ++h)
      for (const int32_t t : graph_.neighbours(h))
        for (int64_t c = 0; c < options_.dim; ++c)
          z[h * options_.dim + c] +=
              e[t * options_.dim + c] / std::sqrt(1.0 * graph_.neighbours(h).size() * graph_.neighbours(t).size());
    return z;
  }
  Matrix intents(const Matrix& e, const std::vector<double>& parameters) const {
    const int64_t dim = options_.dim, count = options_.intents;
    Matrix r(e.size(), 0.0);
    for (int64_t h = 0; h < graph_.nodes(); ++h) {
      const double* c = &parameters[graph_.nodes() * dim + (h < graph_.users() ? 0 : dim * count)];
      std::vector<double> p(count);
      double sum = 0;
      for (int64_t k = 0; k < count; ++k) {
        double score = 0;
        for (int64_t a = 0; a < dim; ++a) score += e[h * dim + a] * c[a * count + k];
        sum += p[k] = std::exp(score);
      }
      for (int64_t k = 0; k < count; ++k)
        for (int64_t a = 0; a < dim; ++a) r[h * dim + a] += p[k] / sum * c[a * count + k];
    }
    return r;
  }
  Matrix masked(const Matrix& x, const Matrix& e) const {
    Matrix h(e.size(), 0.0);
    for (int64_t row = 0; row < graph_.nodes(); ++row) {
      double sum = 0;
      for (const int32_t t : graph_.neighbours(row)) sum += (cosine(x, row, x, t) + 1) / 2;
      for (const int32_t t : graph_.neighbours(row))
        for (int64_t c = 0; c < options_.dim; ++c)
          h[row * options_.dim + c] += (cosine(x, row, x, t) + 1) / 2 / sum * e[t * options_.dim + c];
    }
    return h;
  }
  double info_nce(const Matrix& anchor, const Matrix& view, const std::vector<int32_t>& nodes) const {
    double loss = 0;
    for (const int32_t i : nodes) {
      double sum = 0;
      for (const int32_t j : nodes) sum += std::exp(cosine(anchor, i, view, j) / options_.temperature);
      loss += std::log(sum) - cosine(anchor, i, view, i) / options_.temperature;
    }
    return loss / static_cast<double>(nodes.size());
  }

  const Graph& graph_;
  ModelOptions options_;
  std::vector<Layer> layers_;
};

}  // namespace collimate::dccf
