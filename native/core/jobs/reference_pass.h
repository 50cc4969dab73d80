// What the preference loss of `tune` measures against: how likely the answers of groups were before training.
//
// 1. A function of the examples and the initial weights alone: groups are packed by number, never by thread, and every
//    rank computes all of it. So it is in no checkpoint, and the same after a resume and in every gang.
#pragma once

#include <vector>

#include "core/job.h"
#include "core/model/parameters.h"
#include "core/model/training_examples.h"

namespace collimate {

struct ReferencePass {
  const TrainingExamples& examples;
  const Parameters& parameters;
  Precision precision = Precision::fp32;  // the products that training will have
};

// log p of the answer of every sequence that is in a group, without dropout, under the weights as they are; 0 for the
// others. Empty without groups. Throws as JobContext::throw_if_interrupted does.
std::vector<double> reference_log_probabilities(JobContext& context, const ReferencePass& pass);

}  // namespace collimate
