# The README in SOURCE_DIR shows examples/readme.cpp as it is, and what PROGRAM, made from it, prints.

cmake_minimum_required(VERSION 3.21...3.30)

# The instruction set is that of the machine.
function(replace_target variable)
  string(REGEX REPLACE "on (scalar|baseline|avx2|avx512)\n" "on <target>\n" ${variable} "${${variable}}")
  set(${variable} "${${variable}}" PARENT_SCOPE)
endfunction()

function(require_in_readme what block)
  string(FIND "${readme}" "${block}" position)
  if(position EQUAL -1)
    message(FATAL_ERROR "README.md does not show ${what}:\n${block}")
  endif()
endfunction()

file(READ ${SOURCE_DIR}/README.md readme)
file(READ ${SOURCE_DIR}/examples/readme.cpp code)
execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
replace_target(readme)
replace_target(output)

require_in_readme("examples/readme.cpp" "```cpp\n${code}```")
require_in_readme("what it prints" "```\n${output}```")
