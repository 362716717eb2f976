# cmake -D BUILD_DIR=... -D SOURCE_DIR=... -D CXX_COMPILER=... [-D CXX_FLAGS=...] [-D CRASH_TEST=...]
#     -P TestFindPackage.cmake
#
# What a user does: installs holdfast (the build in BUILD_DIR), and builds and runs a project of his
# own (SOURCE_DIR) that finds it with find_package. All of it happens outside the build tree, so that
# nothing can be found there by accident.
if(DEFINED ENV{TMPDIR})
    set(temporary "$ENV{TMPDIR}")
else()
    set(temporary /tmp)
endif()
string(RANDOM LENGTH 12 suffix)
set(work "${temporary}/holdfast-find-package-${suffix}")
unset(ENV{DESTDIR})

function(step what)
    execute_process(COMMAND ${ARGN} WORKING_DIRECTORY "${work}"
        RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
    if(NOT status EQUAL 0)
        file(REMOVE_RECURSE "${work}")
        message(FATAL_ERROR "${what}: ended with ${status}\n${output}")
    endif()
    message(STATUS "${what}: well")
endfunction()

file(MAKE_DIRECTORY "${work}")
step("install" ${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${work}/prefix)
step("configure" ${CMAKE_COMMAND} -S ${SOURCE_DIR} -B ${work}/build -G Ninja
    -DCMAKE_CXX_COMPILER=${CXX_COMPILER}
    "-DCMAKE_CXX_FLAGS=${CXX_FLAGS}"
    -DCMAKE_PREFIX_PATH=${work}/prefix
    -DCRASH_TEST=${CRASH_TEST})
step("build" ${CMAKE_COMMAND} --build ${work}/build)
step("run" ${work}/build/use_holdfast)
if(EXISTS ${work}/build/crash_counter)
    step("crash" ${work}/build/crash_counter)
endif()
# The command finds the tracer that it loads into other programs where that is installed; and a
# program that never stores shows it.
execute_process(COMMAND ${work}/prefix/bin/holdfast crash trace --run "true {pool}"
    RESULT_VARIABLE status ERROR_VARIABLE errors)
if(NOT status EQUAL 2 OR NOT errors MATCHES "stored nothing")
    file(REMOVE_RECURSE "${work}")
    message(FATAL_ERROR "crash trace: ended with ${status}\n${errors}")
endif()
file(REMOVE_RECURSE "${work}")
