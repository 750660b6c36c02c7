# Install rules: headers, find_package(batchnorm), pkg-config.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

target_include_directories(batchnorm INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
install(DIRECTORY include/batchnorm DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/batchnorm)
install(TARGETS batchnorm EXPORT batchnormTargets)
install(EXPORT batchnormTargets NAMESPACE batchnorm:: DESTINATION ${package_dir})
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/batchnormConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES cmake/batchnormConfig.cmake ${PROJECT_BINARY_DIR}/batchnormConfigVersion.cmake DESTINATION ${package_dir})

# Relative to the .pc file, so that `cmake --install --prefix` may choose another prefix than the configuration did.
set(pkgconfig_dir ${CMAKE_INSTALL_DATADIR}/pkgconfig)
file(RELATIVE_PATH pkgconfig_to_include ${CMAKE_INSTALL_PREFIX}/${pkgconfig_dir} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
configure_file(cmake/batchnorm.pc.in ${PROJECT_BINARY_DIR}/batchnorm.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/batchnorm.pc DESTINATION ${pkgconfig_dir})
