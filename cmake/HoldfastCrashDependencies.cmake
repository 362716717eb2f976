# The libraries that the crash harness links besides those of HoldfastDependencies.cmake. It is always
# a static library, so that whoever links it needs them too.
include(CMakeFindDependencyMacro)
find_dependency(PkgConfig)

pkg_check_modules(HOLDFAST_DW REQUIRED IMPORTED_TARGET libdw)
