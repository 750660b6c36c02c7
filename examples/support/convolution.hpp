#pragma once

#include <type_traits>
#include <unsupported/Eigen/CXX11/Tensor>
#include <utility>
#include <vector>

#include "matrix.hpp"

namespace example {

/// Images, rows, columns, channels: axis -1 has the channels for a batch normalization.
using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;
using Device = Eigen::ThreadPoolDevice;  // there if EIGEN_USE_THREADS is defined before the first include

/// Calls task(image) for each image of a batch.
template <class Task>
void for_each_image(const Device& device, Index images, const Task& task) {
  constexpr double cycles = 1e5;  // Enough that every thread gets some images.
  device.parallelFor(images, Eigen::TensorOpCost(0, 0, cycles), [&](Index first, Index last) {
    for (Index image = first; image < last; ++image) task(image);
  });
}

inline Index pixels(const Tensor& tensor) { return tensor.dimension(1) * tensor.dimension(2); }

/// One image as a matrix: `rows` may be those of the image, or all its pixels.
template <class T>
auto matrix_of(T& tensor, Index image, Index rows) {
  const Index size = tensor.size() / tensor.dimension(0);
  using MatrixOf = std::conditional_t<std::is_const_v<T>, const Matrix, Matrix>;
  return Eigen::Map<MatrixOf>(tensor.data() + image * size, rows, size / rows);
}

/// A 3x3 convolution over images with zeros around them, as a matrix product: the patches of x, one in a row, times the
/// weights, one output in a column.
class Convolution {
 public:
  /// Takes weights of 3 x 3 x inputs x outputs.
  Convolution(Tensor weights, Index stride) : weights_(std::move(weights)), stride_(stride) {}

  void forward(const Device& device, const Tensor& x, Tensor& y) const {
    y.resize(x.dimension(0), strided(x.dimension(1)), strided(x.dimension(2)), outputs());
    for_each_image(device, x.dimension(0), [&](Index image) {
      auto y_image = matrix_of(y, image, pixels(y));
      y_image.noalias() = patches(x, image) * weight_matrix();
      if (bias_.size() > 0) y_image.rowwise() += bias_.transpose();
    });
  }

  /// dx takes the shape of x.
  void backward(const Device& device, const Tensor& x, const Tensor& dy, Tensor& dx) {
    dx.resize(x.dimensions());
    gradients_.resize(static_cast<std::size_t>(x.dimension(0)));
    for_each_image(device, x.dimension(0), [&](Index image) {
      const auto dy_image = matrix_of(dy, image, pixels(dy));
      gradients_[static_cast<std::size_t>(image)].noalias() = patches(x, image).transpose() * dy_image;
      add_patches(dy_image * weight_matrix().transpose(), dx, image);
    });
    // The gradients of all images are added in order, so that any number of threads gives the same sum.
    for (std::size_t image = 1; image < gradients_.size(); ++image) gradients_[0] += gradients_[image];
  }

  void step(float rate) {
    Eigen::Map<Matrix>(weights_.data(), gradients_[0].rows(), gradients_[0].cols()) -= rate * gradients_[0];
  }

  Tensor& weights() { return weights_; }
  Eigen::VectorXf& bias() { return bias_; }

 private:
  Index inputs() const { return weights_.dimension(2); }
  Index outputs() const { return weights_.dimension(3); }
  Index strided(Index side) const { return (side + stride_ - 1) / stride_; }
  Eigen::Map<const Matrix> weight_matrix() const { return {weights_.data(), 9 * inputs(), outputs()}; }

  /// Calls f(patch, its row in the image with zeros around it, its first column there).
  template <class F>
  void for_each_patch(const Tensor& x, const F& f) const {
    Index patch = 0;
    for (Index row = 0; row < x.dimension(1); row += stride_) {
      for (Index column = 0; column < x.dimension(2); column += stride_) f(patch++, row, column * inputs());
    }
  }

  Matrix patches(const Tensor& x, Index image) const {
    const Index rows = x.dimension(1), columns = x.dimension(2) * inputs(), length = 3 * inputs();
    Matrix padded = Matrix::Zero(rows + 2, columns + 2 * inputs());
    padded.block(1, inputs(), rows, columns) = matrix_of(x, image, rows);
    Matrix result(strided(rows) * strided(x.dimension(2)), 3 * length);
    for_each_patch(x, [&](Index patch, Index row, Index column) {
      for (Index k = 0; k < 3; ++k) {
        result.row(patch).segment(k * length, length) = padded.row(row + k).segment(column, length);
      }
    });
    return result;
  }

  /// The reverse of `patches`: adds them up where they overlap.
  void add_patches(const Matrix& patches, Tensor& x, Index image) const {
    const Index rows = x.dimension(1), columns = x.dimension(2) * inputs(), length = 3 * inputs();
    Matrix padded = Matrix::Zero(rows + 2, columns + 2 * inputs());
    for_each_patch(x, [&](Index patch, Index row, Index column) {
      for (Index k = 0; k < 3; ++k) {
        padded.row(row + k).segment(column, length) += patches.row(patch).segment(k * length, length);
      }
    });
    matrix_of(x, image, rows) = padded.block(1, inputs(), rows, columns);
  }

  Tensor weights_;
  Eigen::VectorXf bias_;  // empty: none
  std::vector<Matrix> gradients_;
  Index stride_;
};

}  // namespace example
