// What is checked when a store is opened, and nothing that grows with it. Everything else is
// checked when it is first walked.
#pragma once

#include <string>

#include "format/superblock.hpp"
#include "holdfast/error.hpp"

namespace holdfast::recovery {

// Magic, version, features and checksums. unsupported for a newer version or an unknown
// incompatible feature, damaged otherwise; `path` is for the message.
Result<void> check_superblock(const format::Superblock& superblock, const std::string& path);

}  // namespace holdfast::recovery
