// Judges one fault after the other, in a process that may end.
#pragma once

#include <cstddef>
#include <functional>
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

// Opens the pool at the path and says what became of the fault in it: noticed, harmless, or wrong,
// with what is wrong.
using JudgePool = std::function<FaultFate(const std::string& path, std::string& wrong)>;

// Plants each fault in a copy of the pool, alone, and judges it. A judge that ends its process, by
// whatever signal or exit, is `killed`; one that takes longer than the time given is `hung`; after
// either, as after a wrong answer, another process goes on. Errors: damaged, if the pool without a
// fault is not harmless; io.
Result<std::vector<JudgedFault>> judge_faults(std::span<const std::byte> pool,
                                              const JudgePool& judge,
                                              const std::vector<MediaFault>& faults,
                                              double seconds_per_check);

// The same with `judge_damaged`, by what the undamaged pool answered.
Result<std::vector<JudgedFault>> judge_faults(std::span<const std::byte> pool,
                                              const Answers& before,
                                              const std::vector<MediaFault>& faults,
                                              double seconds_per_check);

}  // namespace holdfast::crash
