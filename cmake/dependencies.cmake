# What the project's own build needs: installed packages, else the releases that Debian 12 has, through FetchContent. So
# both ways build the same programs.

include(FetchContent)

find_package(Threads REQUIRED)

# Declares `name` as the archive at `url`. The download stands outside FetchContent, which retries for minutes before it
# reports a missing network.
function(declare_archive name url sha256 debian_package)
  cmake_path(GET url FILENAME file)
  set(archive ${CMAKE_BINARY_DIR}/_deps/${name}-${file})
  string(TOUPPER ${name} upper_name)
  if(NOT EXISTS ${archive} AND NOT FETCHCONTENT_SOURCE_DIR_${upper_name})
    message(NOTICE "${name} is not installed; fetching ${url}")
    file(DOWNLOAD ${url} ${archive}.part STATUS status INACTIVITY_TIMEOUT 30)
    list(POP_FRONT status code)
    if(code)
      message(FATAL_ERROR "${name} is not installed, and fetching ${url} failed: ${status}. "
                          "Install it (Debian: apt-get install ${debian_package}) or connect to the network.")
    endif()
    file(RENAME ${archive}.part ${archive})
  endif()
  FetchContent_Declare(${name} URL ${archive} URL_HASH SHA256=${sha256} ${ARGN})
endfunction()

# Makes the headers of a fetched library the imported target `target`, without running the library's own build.
function(import_headers target name include_dir)
  FetchContent_MakeAvailable(${name})
  FetchContent_GetProperties(${name} SOURCE_DIR source_dir)
  add_library(${target} INTERFACE IMPORTED)
  target_include_directories(${target} INTERFACE ${source_dir}/${include_dir})
endfunction()

function(require_eigen)
  find_package(Eigen3 3.4 QUIET CONFIG)
  if(NOT TARGET Eigen3::Eigen)
    declare_archive(
      eigen https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.bz2
      b4c198460eba6f28d34894e3a5710998818515104d6e74e5cc331ce31e46e626 libeigen3-dev SOURCE_SUBDIR headers-only)
    import_headers(Eigen3::Eigen eigen .)
  endif()
endfunction()

function(require_cli11)
  find_package(CLI11 QUIET CONFIG)
  if(NOT TARGET CLI11::CLI11)
    declare_archive(
      cli11 https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.1.2.tar.gz
      26291377e892ba0e5b4972cdfd4a2ab3bf53af8dac1f4ea8fe0d1376b625c8cb libcli11-dev SOURCE_SUBDIR headers-only)
    import_headers(CLI11::CLI11 cli11 include)
  endif()
endfunction()

function(require_googletest)
  find_package(GTest 1.12 QUIET CONFIG)
  if(NOT TARGET GTest::gtest_main)
    declare_archive(
      googletest https://github.com/google/googletest/archive/refs/tags/release-1.12.1.tar.gz
      81964fe578e9bd7c94dfdb09c8e4d6e6759e19967e397dbea48d1c10e45d0df2 libgtest-dev)
    set(BUILD_GMOCK OFF)
    set(INSTALL_GTEST OFF)
    FetchContent_MakeAvailable(googletest)
  endif()
endfunction()

function(require_benchmark)
  find_package(benchmark 1.7 QUIET CONFIG)
  if(NOT TARGET benchmark::benchmark)
    declare_archive(
      benchmark https://github.com/google/benchmark/archive/refs/tags/v1.7.1.tar.gz
      6430e4092653380d9dc4ccb45a1e2dc9259d581f4866dc0759713126056bc1d7 libbenchmark-dev)
    set(BENCHMARK_ENABLE_INSTALL OFF)
    set(BENCHMARK_ENABLE_TESTING OFF)
    set(BENCHMARK_ENABLE_WERROR OFF)
    FetchContent_MakeAvailable(benchmark)
    # Our warning flags are not for its headers.
    get_target_property(include_dirs benchmark INTERFACE_INCLUDE_DIRECTORIES)
    set_target_properties(benchmark PROPERTIES INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${include_dirs}")
  endif()
endfunction()
