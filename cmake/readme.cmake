# The README in SOURCE_DIR shows some of the examples as they are, and what the programs made from them, in PROGRAM_DIR,
# print.

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
replace_target(readme)
foreach(example readme gradient_penalty)
  file(READ ${SOURCE_DIR}/examples/${example}.cpp code)
  execute_process(COMMAND ${PROGRAM_DIR}/${example} OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
  replace_target(output)
  require_in_readme("examples/${example}.cpp" "```cpp\n${code}```")
  require_in_readme("what ${example} prints" "```\n${output}```")
endforeach()
