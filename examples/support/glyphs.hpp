#pragma once

#include <Eigen/Geometry>
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <random>
#include <vector>

#include "digits.hpp"

namespace example {

using Point = Eigen::Vector2f;
using Stroke = std::vector<Point>;
using Glyph = std::vector<Stroke>;

/// Points on an ellipse, from one angle to another in degrees; 0 is right, 90 is down.
inline Stroke arc(const Point& center, const Point& radius, float from, float to) {
  constexpr int segments = 16;
  Stroke stroke;
  for (int i = 0; i <= segments; ++i) {
    const float angle = (from + (to - from) * static_cast<float>(i) / segments) * std::numbers::pi_v<float> / 180;
    stroke.emplace_back(center + radius.cwiseProduct(Point(std::cos(angle), std::sin(angle))));
  }
  return stroke;
}

inline Stroke join(Stroke first, const Stroke& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

/// Digits 0 to 9 in the square from (-1, -1), top left, to (1, 1).
inline const std::array<Glyph, 10>& glyphs() {
  static const std::array<Glyph, 10> all = {
      Glyph{arc({0, 0}, {.6f, .9f}, 0, 360)},
      Glyph{{{-.3f, -.6f}, {.1f, -.9f}, {.1f, .9f}}},
      Glyph{join(arc({0, -.4f}, {.55f, .5f}, -160, 40), {{-.6f, .9f}, {.65f, .9f}})},
      Glyph{join(arc({-.05f, -.45f}, {.5f, .45f}, -150, 90), arc({-.05f, .45f}, {.6f, .45f}, -90, 150))},
      Glyph{{{.3f, .9f}, {.3f, -.9f}, {-.65f, .35f}, {.7f, .35f}}},
      Glyph{join({{.55f, -.9f}, {-.4f, -.9f}, {-.5f, -.1f}}, arc({-.05f, .35f}, {.6f, .55f}, -130, 140))},
      Glyph{join({{.35f, -.9f}, {-.2f, -.5f}}, arc({0, .4f}, {.5f, .5f}, 180, 540))},
      Glyph{{{-.6f, -.9f}, {.6f, -.9f}, {-.1f, .9f}}},
      Glyph{arc({0, -.45f}, {.45f, .45f}, 90, 450), arc({0, .45f}, {.55f, .45f}, -90, 270)},
      Glyph{join(arc({0, -.4f}, {.5f, .5f}, 0, 360), {{.45f, .1f}, {.2f, .9f}})},
  };
  return all;
}

inline float distance(const Point& point, const Point& from, const Point& to) {
  const Point along = to - from;
  const float length_squared = std::max(along.squaredNorm(), 1e-6f);
  const float t = std::clamp((point - from).dot(along) / length_squared, 0.f, 1.f);
  return (point - from - t * along).norm();
}

inline float distance(const Point& point, const Stroke& stroke) {
  float nearest = distance(point, stroke[0], stroke[1]);
  for (std::size_t i = 2; i < stroke.size(); ++i) {
    nearest = std::min(nearest, distance(point, stroke[i - 1], stroke[i]));
  }
  return nearest;
}

/// Draws digits as many hands would: shifted, scaled, slanted, bent, thick or thin, and noisy.
class Pen {
 public:
  explicit Pen(unsigned seed) : generator_(seed) {}

  int any_digit() { return std::uniform_int_distribution<int>(0, 9)(generator_); }

  Eigen::RowVectorXf draw(int digit) {
    Eigen::RowVectorXf image = Eigen::RowVectorXf::Zero(image_size);
    const Glyph glyph = deformed(glyphs()[static_cast<std::size_t>(digit)]);
    const float half_width = between(0.6f, 1.7f);
    for (const Stroke& stroke : glyph) add_ink(stroke, half_width, image);
    const float noise = between(0, 0.15f);
    return image.unaryExpr([&](float ink) { return std::clamp(ink + normal(noise), 0.f, 1.f); });
  }

 private:
  float between(float low, float high) { return std::uniform_real_distribution<float>(low, high)(generator_); }
  float normal(float std) { return std::normal_distribution<float>(0, 1)(generator_) * std; }

  /// In pixels. Braces, for they fix the order of the random numbers, which parentheses leave to the compiler.
  Glyph deformed(Glyph glyph) {
    const Eigen::Rotation2Df turn(normal(0.12f));
    const Eigen::Matrix2f slant{{1, normal(0.2f)}, {0, 1}};
    const Eigen::DiagonalMatrix<float, 2> scale{between(6, 10), between(7, 10.5f)};
    const Eigen::Matrix2f affine = turn.toRotationMatrix() * slant * scale;
    const Point shift = Point::Constant(image_side / 2.f) + Point{normal(1.2f), normal(1.2f)};
    const Point bend{normal(0.12f), normal(0.12f)}, phase{between(0, 6), between(0, 6)};
    for (Stroke& stroke : glyph) {
      for (Point& point : stroke) {
        const Point wave = (3 * point.reverse() + phase).array().sin();
        point = affine * (point + bend.cwiseProduct(wave)) + shift;
      }
    }
    return glyph;
  }

  static void add_ink(const Stroke& stroke, float half_width, Eigen::RowVectorXf& image) {
    for (Index pixel = 0; pixel < image_size; ++pixel) {
      const Index row = pixel / image_side, column = pixel % image_side;
      const Point center(static_cast<float>(column) + 0.5f, static_cast<float>(row) + 0.5f);
      const float ink = half_width + 0.5f - distance(center, stroke);
      image(pixel) = std::max(image(pixel), std::clamp(ink, 0.f, 1.f));
    }
  }

  std::mt19937 generator_;
};

/// The same seed draws the same digits.
inline DataSet draw_digits(unsigned seed) {
  constexpr Index count = 10'000;
  Pen pen(seed);
  Digits digits{Matrix(count, image_size), Labels(count)};
  for (Index i = 0; i < count; ++i) {
    digits.labels(i) = pen.any_digit();
    digits.images.row(i) = pen.draw(digits.labels(i));
  }
  return split("Drawn digits", digits);
}

}  // namespace example
