#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numbers>
#include <random>
#include <vector>

#include "batches.hpp"
#include "classification.hpp"
#include "digits.hpp"
#include "progress.hpp"
#include "residual_network.hpp"

namespace example {

/// Copies an image, moved down and to the right; negative numbers move it up and to the left. What it leaves behind
/// stays as it was in `to`.
inline void copy_shifted(const Eigen::Map<const Matrix>& from, Index down, Index right, Eigen::Map<Matrix> to) {
  const Index rows = image_side - std::abs(down), columns = image_side - std::abs(right);
  to.block(std::max<Index>(down, 0), std::max<Index>(right, 0), rows, columns) =
      from.block(std::max<Index>(-down, 0), std::max<Index>(-right, 0), rows, columns);
}

/// Makes a new digit of an old one, moved by up to 2 pixels in each direction.
class Shifter {
 public:
  explicit Shifter(unsigned seed) : generator_(seed) {}

  /// Takes one image per row.
  Tensor operator()(const Matrix& images) {
    Tensor result(images.rows(), image_side, image_side, 1);
    result.setZero();
    for (Index i = 0; i < images.rows(); ++i) {
      const Index down = distance_(generator_), right = distance_(generator_);
      copy_shifted({images.row(i).data(), image_side, image_side}, down, right, matrix_of(result, i, image_side));
    }
    return result;
  }

 private:
  std::mt19937 generator_;
  std::uniform_int_distribution<Index> distance_{-2, 2};
};

/// The logits of all images, computed batch by batch.
inline Matrix infer(ResidualNetwork& network, const Device& device, const Matrix& images) {
  Matrix logits(images.rows(), 10);
  for (Index first = 0; first < images.rows(); first += batch_size) {
    const Index count = std::min(batch_size, images.rows() - first);
    const Eigen::TensorMap<const Tensor> batch(images.row(first).data(), count, image_side, image_side, 1);
    logits.middleRows(first, count) = network.forward(device, batch);
  }
  return logits;
}

/// The first epoch is 1.
struct Epoch {
  int number;
  double training_loss;  // mean over the epoch, of shifted digits
  double held_out_loss, held_out_accuracy;
};

struct Training {
  int epochs;
  unsigned seed;
};

/// Half a cosine, from 2 to 0.
inline float rate_at(Index step, Index steps) {
  return 1 + std::cos(std::numbers::pi_v<float> * static_cast<float>(step) / static_cast<float>(steps));
}

class Trainer {
 public:
  Trainer(ResidualNetwork& network, const Device& device, const DataSet& data, const Training& training)
      : network_(network),
        device_(device),
        data_(data),
        batches_(data.training.count(), training.seed),
        shift_(training.seed),
        batches_per_epoch_(data.training.count() / batch_size),
        steps_(training.epochs * batches_per_epoch_),
        progress_(steps_) {}

  Epoch train_epoch(int number) {
    network_.train();
    double loss = 0;
    for (Index i = 0; i < batches_per_epoch_; ++i) loss += step() / static_cast<double>(batches_per_epoch_);
    network_.eval();
    const Matrix held_out = log_softmax(infer(network_, device_, data_.held_out.images));
    const Labels& labels = data_.held_out.labels;
    return {number, loss, mean_loss(held_out, labels), accuracy(held_out, labels)};
  }

 private:
  /// One step of stochastic gradient descent; returns the loss.
  double step() {
    const auto batch = batches_.next();
    const Tensor images = shift_(data_.training.images(batch, Eigen::all));
    const Labels labels = data_.training.labels(batch);
    const Matrix logits = network_.forward(device_, images);
    network_.backward(device_, images, loss_gradient(logits, labels));
    network_.step(rate_at(step_++, steps_));
    progress_.advance(1);
    return mean_loss(log_softmax(logits), labels);
  }

  ResidualNetwork& network_;
  const Device& device_;
  const DataSet& data_;
  Batches batches_;
  Shifter shift_;
  const Index batches_per_epoch_, steps_;
  Index step_ = 0;
  Progress progress_;
};

/// Leaves the network in eval.
inline std::vector<Epoch> train(ResidualNetwork& network, const Device& device, const DataSet& data,
                                const Training& training) {
  Trainer trainer(network, device, data, training);
  std::vector<Epoch> history;
  for (int number = 1; number <= training.epochs; ++number) history.push_back(trainer.train_epoch(number));
  return history;
}

}  // namespace example
