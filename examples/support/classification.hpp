#pragma once

#include "matrix.hpp"

namespace example {

inline Matrix log_softmax(const Matrix& logits) {
  const Matrix shifted = logits.colwise() - logits.rowwise().maxCoeff();
  const Eigen::VectorXf log_sums = shifted.array().exp().rowwise().sum().log();
  return shifted.colwise() - log_sums;
}

/// Of the mean cross-entropy, with respect to the logits.
inline Matrix loss_gradient(const Matrix& logits, const Labels& labels) {
  Matrix gradient = log_softmax(logits).array().exp();
  for (Index i = 0; i < labels.size(); ++i) gradient(i, labels(i)) -= 1;
  gradient /= static_cast<float>(labels.size());
  return gradient;
}

inline double mean_loss(const Matrix& log_probabilities, const Labels& labels) {
  double sum = 0;
  for (Index i = 0; i < labels.size(); ++i) sum -= log_probabilities(i, labels(i));
  return sum / static_cast<double>(labels.size());
}

inline Labels answers(const Matrix& log_probabilities) {
  Labels result(log_probabilities.rows());
  for (Index i = 0; i < result.size(); ++i) log_probabilities.row(i).maxCoeff(&result(i));
  return result;
}

inline double accuracy(const Matrix& log_probabilities, const Labels& labels) {
  return (answers(log_probabilities).array() == labels.array()).cast<double>().mean();
}

}  // namespace example
