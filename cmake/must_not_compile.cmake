# One must-not-compile case: SOURCE compiles with CXX as it stands; with MUST_NOT_COMPILE defined it does not, and the
# compiler's first error holds the text that the first line of SOURCE expects.

cmake_minimum_required(VERSION 3.21...3.30)

list(TRANSFORM INCLUDE_DIRS PREPEND -I)
set(compile ${CXX} -std=c++20 -fsyntax-only ${INCLUDE_DIRS} ${SOURCE})

file(STRINGS ${SOURCE} first_line LIMIT_COUNT 1)
if(NOT first_line MATCHES "^// expects: (.+)$")
  message(FATAL_ERROR "The first line must read: // expects: <part of the compiler's first error>")
endif()
set(expected "${CMAKE_MATCH_1}")

execute_process(COMMAND ${compile} RESULT_VARIABLE result ERROR_VARIABLE output)
if(result)
  message(FATAL_ERROR "The right twin does not compile:\n${output}")
endif()

execute_process(COMMAND ${compile} -DMUST_NOT_COMPILE RESULT_VARIABLE result ERROR_VARIABLE output)
if(NOT result)
  message(FATAL_ERROR "The wrong line compiles.")
endif()
string(REGEX MATCH "error:[^\n]*" first_error "${output}")
string(FIND "${first_error}" "${expected}" position)
if(position EQUAL -1)
  message(FATAL_ERROR "The compiler's first error lacks \"${expected}\":\n${output}")
endif()
