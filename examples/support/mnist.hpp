#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "digits.hpp"

namespace example {

using Bytes = std::vector<unsigned char>;

[[noreturn]] inline void refuse(const std::filesystem::path& path, const std::string& reason) {
  throw std::runtime_error(path.string() + " " + reason);
}

inline Bytes read_bytes(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) refuse(path, "does not exist");
  std::ifstream file(path, std::ios::binary);
  if (!file || !std::filesystem::is_regular_file(path)) refuse(path, "cannot be read");
  Bytes bytes(std::filesystem::file_size(path));
  if (!file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()))) {
    refuse(path, "cannot be read");
  }
  return bytes;
}

inline std::uint32_t big_endian(const Bytes& bytes, std::size_t offset) {
  std::uint32_t value = 0;
  for (std::size_t i = offset; i < offset + 4; ++i) value = value << 8 | bytes[i];
  return value;
}

/// The values of an IDX file: a magic number, the count of items, the sizes of an item, then one byte per value.
inline Bytes read_idx(const std::filesystem::path& path, const std::vector<std::uint32_t>& item_sizes) {
  Bytes bytes = read_bytes(path);
  const std::size_t header_size = 8 + 4 * item_sizes.size();
  if (bytes.size() < header_size) refuse(path, "is truncated: it ends within its header");

  const std::uint32_t magic = 0x0801 + static_cast<std::uint32_t>(item_sizes.size());
  if (big_endian(bytes, 0) != magic) {
    refuse(path, "starts with the magic number " + std::to_string(big_endian(bytes, 0)) + "; it must be " +
                     std::to_string(magic));
  }
  std::uint64_t size = big_endian(bytes, 4);
  for (std::size_t i = 0; i < item_sizes.size(); ++i) {
    const std::uint32_t item_size = big_endian(bytes, 8 + 4 * i);
    if (item_size != item_sizes[i]) {
      refuse(path, "has images of side " + std::to_string(item_size) + "; it must be " + std::to_string(item_sizes[i]));
    }
    size *= item_size;
  }
  size += header_size;
  if (bytes.size() != size) {
    refuse(path, (bytes.size() < size ? "is truncated: it has " : "is too long: it has ") +
                     std::to_string(bytes.size()) + " bytes; its header promises " + std::to_string(size));
  }
  bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(header_size));
  return bytes;
}

inline Matrix read_images(const std::filesystem::path& path) {
  const Bytes pixels = read_idx(path, {image_side, image_side});
  const auto count = static_cast<Index>(pixels.size()) / image_size;
  using ByteMatrix = Eigen::Matrix<unsigned char, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  return Eigen::Map<const ByteMatrix>(pixels.data(), count, image_size).cast<float>() / 255;
}

inline Labels read_labels(const std::filesystem::path& path) {
  const Bytes labels = read_idx(path, {});
  const auto wrong = std::find_if(labels.begin(), labels.end(), [](unsigned char label) { return label > 9; });
  if (wrong != labels.end()) {
    refuse(path, "has the label " + std::to_string(*wrong) + " at position " + std::to_string(wrong - labels.begin()) +
                     "; labels are 0 to 9");
  }
  using ByteVector = Eigen::Matrix<unsigned char, Eigen::Dynamic, 1>;
  return Eigen::Map<const ByteVector>(labels.data(), static_cast<Index>(labels.size())).cast<int>();
}

/// One half of MNIST, "train" or "t10k".
class MnistFiles {
 public:
  MnistFiles(const std::filesystem::path& folder, const std::string& half)
      : images_(folder / (half + "-images-idx3-ubyte")), labels_(folder / (half + "-labels-idx1-ubyte")) {}

  bool any() const { return std::filesystem::exists(images_) || std::filesystem::exists(labels_); }

  Digits read() const {
    Digits digits{read_images(images_), read_labels(labels_)};
    if (digits.images.rows() != digits.count()) {
      refuse(labels_, "has " + std::to_string(digits.count()) + " labels; " + images_.filename().string() + " has " +
                          std::to_string(digits.images.rows()) + " images");
    }
    return digits;
  }

 private:
  std::filesystem::path images_, labels_;
};

/// Trains on the training files and holds the test files out; where there is only one half, splits that.
inline DataSet read_mnist(const std::filesystem::path& folder) {
  const MnistFiles training(folder, "train"), test(folder, "t10k");
  if (training.any() && test.any()) return {"MNIST", training.read(), test.read()};
  return split("MNIST", (training.any() ? training : test).read());
}

}  // namespace example
