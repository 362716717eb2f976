# Installs the library, its headers, its CMake package, the crash harness and the command-line tool.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/holdfast)

install(TARGETS holdfast EXPORT holdfastTargets)
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING
    PATTERN "*.hpp" PATTERN "*.h")
install(EXPORT holdfastTargets NAMESPACE holdfast:: DESTINATION ${package_dir})
# An export of its own, so that only who asks for the component "crash" needs what it links.
install(TARGETS holdfast_crash EXPORT holdfastCrashTargets)
install(EXPORT holdfastCrashTargets NAMESPACE holdfast:: DESTINATION ${package_dir})
install(TARGETS holdfast_crash_preload LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET holdfast-cli)
    install(TARGETS holdfast-cli)
endif()

get_target_property(library_type holdfast TYPE)
configure_package_config_file(cmake/holdfastConfig.cmake.in holdfastConfig.cmake
    INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(holdfastConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES
    ${CMAKE_CURRENT_BINARY_DIR}/holdfastConfig.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/holdfastConfigVersion.cmake
    ${CMAKE_CURRENT_SOURCE_DIR}/cmake/HoldfastDependencies.cmake
    ${CMAKE_CURRENT_SOURCE_DIR}/cmake/HoldfastCrashDependencies.cmake
    DESTINATION ${package_dir})
