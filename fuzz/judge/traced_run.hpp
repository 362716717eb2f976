// A subject's one run under the tracer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/crash.hpp"
#include "trace/trace.hpp"

namespace holdfast::crash {

struct TracedRun {
    std::vector<std::byte> initial_image;  // the pool before the run, as large as after it
    Trace trace;
    // Over what the events are, without what they store: of two runs of the same program the same.
    std::uint64_t fingerprint = 0;
};

// Sets up and runs the subject in processes of their own, each of which may take `seconds`. Pages
// of the pool that the set-up never wrote are filled with the byte, if one is given: zeros are what
// a program most easily takes for sense.
Result<TracedRun> trace_run(Subject& subject, double seconds, std::optional<std::uint8_t> fill);

// Runs `work` in a forked process under the tracer, on a file that may exist already.
Result<Trace> trace_process(const std::string& path, double seconds,
                            const std::function<Result<void>(Operations&)>& work);

// Calls `work` in a forked process, with the path of a file to which a program with
// libholdfast-crash-preload.so in it shall write its trace. If that marks no operations, all of it
// is one.
Result<Trace> trace_program(const std::string& trace_path, double seconds,
                            const std::function<Result<void>()>& work);

std::uint64_t fingerprint_of(const Trace& trace);

}  // namespace holdfast::crash
