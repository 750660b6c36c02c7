#pragma once

// CMake reads these three lines; nothing else states the version.
#define BATCHNORM_VERSION_MAJOR 0
#define BATCHNORM_VERSION_MINOR 1
#define BATCHNORM_VERSION_PATCH 0
