# Applied to each of our own targets and to nothing else, so that neither a dependency nor a user of
# the installed library inherits our warnings. "unsanitized" after the target leaves out the
# sanitizers, for what is loaded into programs that have none.
function(holdfast_compile_options target)
    target_compile_options(${target} PRIVATE
        -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
        $<$<BOOL:${HOLDFAST_WERROR}>:-Werror>)
    if(HOLDFAST_SANITIZE AND NOT "unsanitized" IN_LIST ARGN)
        target_compile_options(${target} PRIVATE ${HOLDFAST_SANITIZE_OPTIONS}
            # GCC's flow analysis goes astray in instrumented code.
            $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
        target_link_options(${target} PRIVATE ${HOLDFAST_SANITIZE_OPTIONS})
    endif()
    if(HOLDFAST_FUZZERS)
        # What libFuzzer is guided by. Its own main comes with the fuzzers alone.
        target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
    endif()
endfunction()

if(HOLDFAST_SANITIZE)
    set(HOLDFAST_SANITIZE_OPTIONS
        -fsanitize=${HOLDFAST_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer
        # libpmemobj-cpp's radix tree places values behind keys of any length.
        -fno-sanitize=alignment)
endif()
