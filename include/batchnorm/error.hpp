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

// Texts are put together out of line, so that a check costs its caller one comparison.
#if defined(__GNUC__)
#define BATCHNORM_COLD [[gnu::cold, gnu::noinline]]
#else
#define BATCHNORM_COLD
#endif

/// The one place that reports bad input: `batchnorm::<function>: <problem>`.
BATCHNORM_COLD [[noreturn]] inline void fail(const char* function, const std::string& problem) {
  const std::string text = std::string("batchnorm::") + function + ": " + problem;
#if defined(__cpp_exceptions)
  throw Error(text);
#else
  std::fprintf(stderr, "%s\n", text.c_str());
  std::abort();
#endif
}

BATCHNORM_COLD [[noreturn]] inline void fail(const char* function, const char* problem) {
  fail(function, std::string(problem));
}

/// `value` between two texts.
BATCHNORM_COLD [[noreturn]] inline void fail(const char* function, const char* before, double value,
                                             const char* after) {
  char number[32];
  std::snprintf(number, sizeof number, "%.15g", value);
  fail(function, std::string(before) + number + after);
}

}  // namespace detail
}  // namespace batchnorm
