// The full check (holdfast/verify.hpp). Tests, the crash harness and `holdfast verify` all call it.
#pragma once

#include "recovery/survey.hpp"

namespace holdfast::recovery {

// As `survey`.
VerifyReport verify(const memory::PhysicalMemory& memory, const pool::OrderedMap& directory,
                    const table::LimboStack& limbo, const VerifyOptions& options);

// In the order in which a report has them.
void sort(std::vector<Finding>& findings);

}  // namespace holdfast::recovery
