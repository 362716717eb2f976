// Judges one fault after the other, in a process that may end.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "faults/answers.hpp"
#include "faults/media_fault.hpp"

namespace holdfast::crash {

struct JudgedFault {
    FaultFate fate = FaultFate::none;
    std::string text;  // of what is wrong, and how a process ended
};

// Plants each fault in a copy of the pool, alone, and judges it by what the undamaged pool
// answered. Errors: damaged, if the undamaged pool does not answer that; io.
Result<std::vector<JudgedFault>> judge_faults(std::span<const std::byte> pool,
                                              const Answers& before,
                                              const std::vector<MediaFault>& faults,
                                              double seconds_per_check);

}  // namespace holdfast::crash
