# The libraries that holdfast links. The build reads this file, and so does the package of an
# installed static library, whose users have to link them too.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
find_dependency(fmt)
find_dependency(PkgConfig)

pkg_check_modules(HOLDFAST_PMEM REQUIRED IMPORTED_TARGET libpmem)
pkg_check_modules(HOLDFAST_PMEMOBJ REQUIRED IMPORTED_TARGET libpmemobj)
pkg_check_modules(HOLDFAST_URCU REQUIRED IMPORTED_TARGET liburcu-memb)
pkg_check_modules(HOLDFAST_ELF REQUIRED IMPORTED_TARGET libelf)
