# Trains a network on digits with and without batch normalization, or runs another of the training examples:
#   cmake -P cmake/demo.cmake                              on digits it draws itself
#   cmake -DDATA=DIR -P cmake/demo.cmake                   on the MNIST files in DIR
#   cmake -DEXAMPLE=train_residual -P cmake/demo.cmake     a residual network, folded after training

include(${CMAKE_CURRENT_LIST_DIR}/setup.cmake)

if(NOT EXAMPLE)
  set(EXAMPLE train_digits)
endif()
set(folder ${source_dir}/build/demo)
set(arguments --output ${folder}/output)
if(DATA)
  cmake_path(ABSOLUTE_PATH DATA BASE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR} NORMALIZE)
  list(APPEND arguments --data ${DATA})
endif()

install_packages(libeigen3-dev libcli11-dev gnuplot-nox)
build(${folder} ${EXAMPLE} -DBATCHNORM_TESTS=OFF -DBATCHNORM_BENCHMARKS=OFF)

# CMake hands a program's output on through a pipe, where a progress bar does not see that a terminal shows it.
set(terminal "")
if(EXISTS /proc/self/fd/1)
  file(READ_SYMLINK /proc/self/fd/1 stdout)
  if(stdout MATCHES "^/dev/(pts/|tty)" AND EXISTS ${stdout})
    set(terminal OUTPUT_FILE ${stdout})
  endif()
endif()

file(MAKE_DIRECTORY ${folder}/output)
execute_process(COMMAND ${folder}/examples/${EXAMPLE} ${arguments} RESULT_VARIABLE result ${terminal})
if(result)
  message(FATAL_ERROR "${EXAMPLE} failed (${result}).")
endif()
