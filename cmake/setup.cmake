# Set-up shared by demo.cmake, test.cmake and compare.cmake: Debian packages, configuration, build.

cmake_minimum_required(VERSION 3.21...3.30)
cmake_path(GET CMAKE_CURRENT_LIST_DIR PARENT_PATH source_dir)
cmake_host_system_information(RESULT cores QUERY NUMBER_OF_LOGICAL_CORES)

# Sets `result` to those of the Debian packages that are not installed; to none on another system.
function(find_missing_packages result)
  find_program(DPKG_QUERY dpkg-query)
  set(missing "")
  if(DPKG_QUERY)
    foreach(package IN LISTS ARGN)
      execute_process(
        COMMAND ${DPKG_QUERY} --show --showformat "\${db:Status-Status}" ${package}
        OUTPUT_VARIABLE status ERROR_QUIET)
      if(NOT status STREQUAL "installed")
        list(APPEND missing ${package})
      endif()
    endforeach()
  endif()
  set(${result} "${missing}" PARENT_SCOPE)
endfunction()

# Sets `result` to the start of an apt-get command with the rights to install; to nothing where there is none.
function(find_apt_get result)
  find_program(APT_GET apt-get)
  find_program(SUDO sudo)
  set(command "")
  execute_process(COMMAND id -u OUTPUT_VARIABLE user OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(APT_GET AND user STREQUAL "0")
    set(command env)
  elseif(APT_GET AND SUDO)
    execute_process(COMMAND ${SUDO} -n true RESULT_VARIABLE refused OUTPUT_QUIET ERROR_QUIET)
    if(NOT refused)
      set(command ${SUDO} -n env)
    endif()
  endif()
  if(command)
    list(APPEND command DEBIAN_FRONTEND=noninteractive ${APT_GET} --quiet --yes -o DPkg::Lock::Timeout=120)
  endif()
  set(${result} "${command}" PARENT_SCOPE)
endfunction()

# Installs what is missing of the Debian packages where that can be done. What stays missing is left to the
# configuration, which fetches it or says what to do.
function(install_packages)
  find_missing_packages(missing ${ARGN})
  find_apt_get(apt_get)
  if(NOT missing OR NOT apt_get)
    return()
  endif()
  list(JOIN missing " " names)
  message(STATUS "Installing ${names}")
  set(install ${apt_get} install --no-install-recommends ${missing})
  execute_process(COMMAND ${install} RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
  if(failed)
    # The package index may be missing or out of date.
    execute_process(COMMAND ${apt_get} update OUTPUT_QUIET ERROR_QUIET)
    execute_process(COMMAND ${install} RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
  endif()
  if(failed)
    message(NOTICE "${output}")
    message(STATUS "apt-get could not install ${names}")
  endif()
endfunction()

# Stops where there is no compiler or no build tool, with one sentence instead of CMake's page.
function(check_tools)
  find_program(CXX_COMPILER NAMES c++ g++ clang++)
  if(NOT CXX_COMPILER AND NOT DEFINED ENV{CXX})
    message(FATAL_ERROR "No C++ compiler found. Install one (Debian: apt-get install g++) or name it in CXX.")
  endif()
  find_program(MAKE NAMES make gmake)
  find_program(NINJA NAMES ninja ninja-build)
  if(NOT MAKE AND NOT NINJA)
    message(FATAL_ERROR "No build tool found. Install one (Debian: apt-get install make).")
  elseif(NOT MAKE)
    set(ENV{CMAKE_GENERATOR} Ninja)
  endif()
endfunction()

# Configures `folder` with the given arguments and builds `target` there on all cores.
function(build folder target)
  check_tools()
  if(DEFINED ENV{CXX})
    # A used build folder would keep its first compiler.
    file(REMOVE_RECURSE ${folder}/CMakeCache.txt ${folder}/CMakeFiles)
  endif()
  message(STATUS "Configuring ${folder}")
  execute_process(
    COMMAND ${CMAKE_COMMAND} -S ${source_dir} -B ${folder} ${ARGN} RESULT_VARIABLE failed OUTPUT_QUIET)
  if(failed)
    message(FATAL_ERROR "The configuration failed; the reason stands above.")
  endif()

  message(STATUS "Building on ${cores} cores")
  execute_process(
    COMMAND ${CMAKE_COMMAND} --build ${folder} --target ${target} --parallel ${cores}
    RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(failed)
    message(NOTICE "${output}")
    message(FATAL_ERROR "The build failed; the reason stands above.")
  endif()
endfunction()
