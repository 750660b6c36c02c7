# Compiles SOURCE with CXX against the library in PREFIX as its pkg-config file says, and runs it.

set(ENV{PKG_CONFIG_PATH} ${PREFIX}/share/pkgconfig)
execute_process(
  COMMAND ${PKG_CONFIG} --cflags --libs batchnorm OUTPUT_VARIABLE flags OUTPUT_STRIP_TRAILING_WHITESPACE
  COMMAND_ERROR_IS_FATAL ANY)
separate_arguments(flags UNIX_COMMAND "${flags}")
execute_process(COMMAND ${CXX} -std=c++20 -O2 ${SOURCE} ${flags} -o pkg_config COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ./pkg_config COMMAND_ERROR_IS_FATAL ANY)
