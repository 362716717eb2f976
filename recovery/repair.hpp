// Repair (holdfast/repair.hpp) of a store that nobody else uses: survey, set right, survey again,
// until nothing is left.
//
// The order. First the structure: what is not to be followed any more (entries, names, limbo,
// builds) is cut off, one commit each. Only a survey that finds the structure well says which
// frames are leaked and which counts are wrong; those follow. Nothing is ever linked but a space
// record to its own name. So after a crash anywhere the next survey finds less than the one before,
// and never something that a repair has made.
#pragma once

#include "holdfast/repair.hpp"
#include "recovery/survey.hpp"

namespace holdfast::recovery {

// `mended` (recovery/mend_superblock.hpp) has been set right already, and is told first.
Result<RepairReport> repair(const memory::PhysicalMemory& memory, pool::OrderedMap directory,
                            const table::LimboStack& limbo, const VerifyOptions& options,
                            bool removes_lost_pages, std::vector<Finding> mended);

}  // namespace holdfast::recovery
