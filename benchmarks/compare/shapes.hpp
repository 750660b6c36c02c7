#pragma once

#include <string>
#include <vector>

#include "problem.hpp"

namespace compare {

/// Tiny shapes cost calls rather than memory, and growing ones show what happens beyond all caches: the means leave
/// both out.
enum class Group { network, tiny, growth };

inline const char* name(Group group) {
  constexpr const char* names[] = {"network", "tiny", "growth"};
  return names[static_cast<int>(group)];
}

struct NamedShape {
  Dimensions dims;
  std::string network;
  Group group = Group::network;
  bool quick = false;  // part of a quick run, and of bench_batch_norm

  std::vector<Layout> layouts() const {
    return dims.size() == 2 ? std::vector{Layout::nc} : std::vector{Layout::nchw, Layout::nhwc};
  }
};

inline std::vector<NamedShape> shapes() {
  return {
      {.dims = {32, 64, 112, 112}, .network = "ResNet", .quick = true},
      {.dims = {32, 64, 56, 56}, .network = "ResNet", .quick = true},
      {.dims = {32, 256, 56, 56}, .network = "ResNet"},
      {.dims = {32, 128, 28, 28}, .network = "ResNet"},
      {.dims = {32, 256, 14, 14}, .network = "ResNet", .quick = true},
      {.dims = {32, 512, 7, 7}, .network = "ResNet", .quick = true},
      {.dims = {32, 2048, 7, 7}, .network = "ResNet"},
      {.dims = {1, 64, 56, 56}, .network = "ResNet", .quick = true},
      {.dims = {1, 512, 7, 7}, .network = "ResNet"},
      {.dims = {32, 32, 112, 112}, .network = "MobileNet"},
      {.dims = {32, 24, 56, 56}, .network = "MobileNet"},
      {.dims = {32, 144, 28, 28}, .network = "MobileNet"},
      {.dims = {32, 960, 7, 7}, .network = "MobileNet"},
      {.dims = {4, 64, 208, 208}, .network = "YOLO"},
      {.dims = {8, 512, 26, 26}, .network = "YOLO"},
      {.dims = {8, 1024, 13, 13}, .network = "YOLO"},
      {.dims = {2, 32, 64, 64, 64}, .network = "U-Net 3D"},
      {.dims = {2, 64, 32, 32, 32}, .network = "U-Net 3D"},
      {.dims = {2, 256, 8, 8, 8}, .network = "U-Net 3D"},
      {.dims = {60, 100}, .network = "dense", .group = Group::tiny},
      {.dims = {128, 256}, .network = "dense", .quick = true},
      {.dims = {256, 1024}, .network = "dense"},
      {.dims = {1024, 4096}, .network = "dense", .quick = true},
      {.dims = {4096, 64}, .network = "dense", .quick = true},
      {.dims = {65536, 16}, .network = "dense"},
      {.dims = {100000, 100}, .network = "dense"},
      {.dims = {4, 32, 7, 7}, .network = "tiny", .group = Group::tiny, .quick = true},
      {.dims = {1, 16}, .network = "tiny", .group = Group::tiny, .quick = true},
      {.dims = {64, 64, 256, 256}, .network = "large", .group = Group::growth},
  };
}

}  // namespace compare
