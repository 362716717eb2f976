// The name of a range, cut to what is mapped of it.
#pragma once

#include <string>

#include "format/space_record.hpp"
#include "holdfast/error.hpp"
#include "memory/physical_memory.hpp"

namespace holdfast::recovery {

// `key` is that of the annotation in the map of the space, whose tables are well. What lies before
// the page `from`, and what is not mapped, loses the name; a damaged annotation is removed. Piece
// by piece, a commit each: a crash leaves the pieces so far, and a rest that is trimmed the next
// time.
Result<void> trim_annotation(const memory::PhysicalMemory& memory,
                             const format::SpaceRecord& record, const std::string& key,
                             std::uint64_t from);

}  // namespace holdfast::recovery
