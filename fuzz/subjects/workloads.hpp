// The workloads that `holdfast crash run --workload NAME` knows.
#pragma once

#include <string>
#include <vector>

#include "subjects/script.hpp"

namespace holdfast::crash {

struct NamedWorkload {
    const char* name;
    const char* about;
    const char* text;
    // A run of so many crash windows that those who go through all workloads look at every n-th.
    unsigned every_window = 1;
};

// One for each call of the API, small enough to be explored to the end; and larger ones.
const std::vector<NamedWorkload>& workloads();

// A workload of that name; "mix-SEED" or "mix-SEED-CALLS" is a random one. Errors: not_found.
Result<Script> find_workload(const std::string& name);

}  // namespace holdfast::crash
