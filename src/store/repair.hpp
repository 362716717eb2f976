// The halves of repair_file (holdfast/repair.hpp), for those who crash them.
#pragma once

#include <string>

#include "holdfast/repair.hpp"

namespace holdfast::detail {

// Repairs the file, or a copy of it that nobody sees, without trying it first.
Result<RepairReport> repair_at_once(const std::string& path, const RepairOptions& options,
                                    bool as_copy);

}  // namespace holdfast::detail
