// Random workloads.
#pragma once

#include <cstdint>
#include <string>

#include "subjects/script.hpp"

namespace holdfast::crash {

// Twelve calls to set up and `calls` to crash, of a few spaces and places, so that they meet each
// other; only those that succeed. The same seed gives the same.
Script random_script(const std::string& name, std::uint64_t seed, std::uint64_t calls);

}  // namespace holdfast::crash
