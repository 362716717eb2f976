// What a path holds, looked at without opening it as a pool and without changing it, so that a
// person is told what is wrong with a file in words that fit it.
#pragma once

#include <cstdint>
#include <string>

#include "holdfast/error.hpp"

namespace holdfast::pool {

// Succeeds if `path` may be given to pmemobj_open: a pool of `layout`, a poolset without replicas
// and with such a pool in it, or a device. `to_write`: and may be written.
Result<void> examine_for_open(const std::string& path, const std::string& layout, bool to_write);
// Whether a copy-on-write mapping of the file can serve as a copy of it: if it may be written, as
// libpmemobj opens it so; and if holes that it has can be read, for which tmpfs takes memory of its
// file system, and ends the process (SIGBUS) when that is full.
bool may_be_mapped_as_copy(const std::string& path);
// Succeeds if `path` may be given to pmemobj_create: nothing there, or a poolset or device.
Result<void> examine_for_create(const std::string& path, std::uint64_t size_bytes);

// Gives the file blocks where it has none (a sparse copy of a pool): a store to such a place would
// be a SIGBUS once the disk is full. Changes no byte; a device or a poolset is left as it is.
// Errors: no_space; permission_denied, io.
Result<void> fill_holes(const std::string& path);

// Whether libpmemobj adds files to the pool as its heap grows: a poolset over a folder.
bool grows_on_demand(const std::string& path);

// The first `size_bytes` of the root object as they stand in the file, before libpmemobj has
// replayed its logs; empty if they cannot be had without opening the pool (a poolset, a device, no
// root).
std::string peek_root(const std::string& path, std::size_t size_bytes);

}  // namespace holdfast::pool
