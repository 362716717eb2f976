# cmake -D PROGRAM=... -D SCRATCH=... -P RunInScratch.cmake
#
# Runs a program in an empty folder of its own, which it may leave files in.
file(REMOVE_RECURSE "${SCRATCH}")
file(MAKE_DIRECTORY "${SCRATCH}")
execute_process(COMMAND "${PROGRAM}" WORKING_DIRECTORY "${SCRATCH}" RESULT_VARIABLE status)
if(NOT status EQUAL 0)
    message(FATAL_ERROR "${PROGRAM} ended with ${status}; its files are in ${SCRATCH}")
endif()
file(REMOVE_RECURSE "${SCRATCH}")
