# Compares batch normalization libraries in speed and accuracy:
#   cmake -P cmake/compare.cmake                               all shapes, in twenty minutes
#   cmake -DARGS="--quick --threads 1" -P cmake/compare.cmake   arguments for the program; --help lists them

include(${CMAKE_CURRENT_LIST_DIR}/setup.cmake)

set(folder ${source_dir}/build/compare)
separate_arguments(arguments UNIX_COMMAND "${ARGS}")

install_packages(libeigen3-dev libbenchmark-dev libcli11-dev libdnnl-dev libtorch-dev libdlib-dev gnuplot-nox)
build(${folder} compare -DBATCHNORM_TESTS=OFF -DBATCHNORM_EXAMPLES=OFF)

# The last of two equal options counts, so ARGS may name other files.
execute_process(
  COMMAND ${folder}/benchmarks/compare/compare --csv ${folder}/comparison.csv --chart ${folder}/comparison.svg
          ${arguments}
  RESULT_VARIABLE result)
if(result)
  message(FATAL_ERROR "compare failed (${result}).")
endif()
