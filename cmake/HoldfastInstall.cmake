# Installs the library, its headers, its CMake package and the command-line tool.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/holdfast)

install(TARGETS holdfast EXPORT holdfastTargets)
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.hpp")
install(EXPORT holdfastTargets NAMESPACE holdfast:: DESTINATION ${package_dir})
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
    DESTINATION ${package_dir})
