#pragma once

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace batchnorm {

/// Thrown for every input that does not fit. The text names the function, the argument, what came and what was wanted:
/// `batchnorm::forward: x is 8x32x7x7; axis 1 must have 64 channels`. Nothing has been written when it is thrown.
/// Where exceptions are switched off, the text goes to stderr and the program aborts.
class Error : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

namespace detail {

/// The one place that reports bad input: `batchnorm::<function>: <problem>`.
[[noreturn, gnu::cold, gnu::noinline]] inline void fail(const char* function, const std::string& problem) {
  const std::string text = std::string("batchnorm::") + function + ": " + problem;
#if defined(__cpp_exceptions)
  throw Error(text);
#else
  std::fprintf(stderr, "%s\n", text.c_str());
  std::abort();
#endif
}

inline std::string text_of(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%g", value);
  return buffer;
}

}  // namespace detail
}  // namespace batchnorm
