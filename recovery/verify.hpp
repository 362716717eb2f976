// The full check (holdfast/verify.hpp): the one home of the invariants I1 to I7. Tests, the crash
// harness and `holdfast verify` all call it.
#pragma once

#include "holdfast/verify.hpp"
#include "memory/physical_memory.hpp"
#include "pool/pool.hpp"
#include "table/limbo_stack.hpp"

namespace holdfast::recovery {

// Nothing may change meanwhile. Changes nothing itself, also on a damaged store.
VerifyReport verify(const memory::PhysicalMemory& memory, const pool::OrderedMap& directory,
                    const table::LimboStack& limbo);

}  // namespace holdfast::recovery
