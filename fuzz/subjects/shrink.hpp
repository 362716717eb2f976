// The shortest workload that still fails.
#pragma once

#include <functional>

#include "subjects/script.hpp"

namespace holdfast::crash {

// Leaves out operations, steps of the set-up and calls of transactions, one at a time, for as long
// as `fails` says that what is left still fails; only workloads whose calls all succeed are tried.
// The result fails, and nothing more can be left out of it alone.
Result<Script> shrink(const Script& script,
                      const std::function<Result<bool>(const Script&)>& fails);

}  // namespace holdfast::crash
