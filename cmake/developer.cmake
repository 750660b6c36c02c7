# The project's own programs: tests, benchmarks, examples, and the flags they are built with.

option(BATCHNORM_TESTS "Build the tests" ON)
option(BATCHNORM_BENCHMARKS "Build the benchmarks" ON)
option(BATCHNORM_EXAMPLES "Build the examples" ON)
set(BATCHNORM_SANITIZE "" CACHE STRING "Sanitizers of the project's own programs, such as address,undefined or thread")

get_property(multi_config GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
if(NOT multi_config AND NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
endif()

set(CMAKE_CXX_EXTENSIONS OFF)

# What every program of the project links: the library, warnings, sanitizers.
add_library(batchnorm_developer INTERFACE)
target_link_libraries(batchnorm_developer INTERFACE batchnorm::batchnorm)
target_compile_options(
  batchnorm_developer
  INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wpsabi -Werror
            # Users compile with -O2; -O3 would test and measure another program. The property OPTIMIZATION of a target
            # stands for it.
            $<$<CONFIG:Release>:$<IF:$<BOOL:$<TARGET_PROPERTY:OPTIMIZATION>>,$<TARGET_PROPERTY:OPTIMIZATION>,-O2>>)
if(BATCHNORM_SANITIZE)
  target_compile_options(
    batchnorm_developer
    INTERFACE -fsanitize=${BATCHNORM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(batchnorm_developer INTERFACE -fsanitize=${BATCHNORM_SANITIZE})
endif()

if(BATCHNORM_TESTS)
  require_googletest()
  enable_testing()
  add_subdirectory(tests)
endif()
if(BATCHNORM_BENCHMARKS)
  require_benchmark()
  require_cli11()
  add_subdirectory(benchmarks)
endif()
if(BATCHNORM_EXAMPLES)
  require_cli11()
  add_subdirectory(examples)
endif()
