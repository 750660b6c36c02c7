# Builds and runs every test:
#   cmake -P cmake/test.cmake

include(${CMAKE_CURRENT_LIST_DIR}/setup.cmake)

set(folder ${source_dir}/build/test)

install_packages(libeigen3-dev libgtest-dev libbenchmark-dev libcli11-dev pkg-config)
build(${folder} all)

file(REMOVE_RECURSE ${folder}/reports)
execute_process(
  COMMAND ${CMAKE_CTEST_COMMAND} --test-dir ${folder} --output-junit reports/ctest.xml --output-on-failure
          --no-tests=error --parallel ${cores}
  RESULT_VARIABLE result)
if(result)
  message(SEND_ERROR "The tests failed; the reasons stand above.")
endif()

# A GoogleTest program counts as many tests as its report holds, any other entry of CTest as one.
set(passed 0)
set(failed 0)
file(STRINGS ${folder}/reports/ctest.xml entries REGEX "<testcase ")
foreach(entry IN LISTS entries)
  string(REGEX MATCH " name=\"([^\"]+)\".* status=\"([^\"]+)\"" _ "${entry}")
  set(name ${CMAKE_MATCH_1})
  set(status ${CMAKE_MATCH_2})
  set(entry_passed 0)
  set(entry_failed 0)
  if(EXISTS ${folder}/reports/${name}.json)
    file(READ ${folder}/reports/${name}.json report)
    string(JSON tests GET "${report}" tests)
    string(JSON entry_failed GET "${report}" failures)
    string(REGEX MATCHALL "\"result\": \"S[A-Z]+\"" not_run "${report}")
    list(LENGTH not_run not_run)
    math(EXPR entry_passed "${tests} - ${entry_failed} - ${not_run}")
  elseif(status STREQUAL "run")
    set(entry_passed 1)
  endif()
  if(NOT status STREQUAL "run" AND entry_failed EQUAL 0)
    set(entry_failed 1)
  endif()
  math(EXPR passed "${passed} + ${entry_passed}")
  math(EXPR failed "${failed} + ${entry_failed}")
endforeach()
execute_process(COMMAND ${CMAKE_COMMAND} -E echo "${passed} passed, ${failed} failed")
