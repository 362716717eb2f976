// What readers do with a space: translate, copy bytes, list. Takes no lock; see ReaderSection.
#pragma once

#include <cstddef>
#include <expected>
#include <span>
#include <vector>

#include "holdfast/space.hpp"
#include "memory/physical_memory.hpp"
#include "space/space_state.hpp"
#include "table/table_editor.hpp"

namespace holdfast::space {

std::expected<Translation, Fault> translate(const memory::PhysicalMemory& memory,
                                            detail::SpaceState& space, VirtAddr address);

// The fault of an access that the translation does not permit.
Fault refused(const Translation& found, Protection access, VirtAddr address);

// Copies until the end or the first fault; returns how many bytes were copied and that fault.
struct Copied {
    std::size_t size_bytes = 0;
    std::optional<Fault> fault;
};
Copied read(const memory::PhysicalMemory& memory, detail::SpaceState& space, VirtAddr address,
            std::span<std::byte> destination);
Copied write(const memory::PhysicalMemory& memory, detail::SpaceState& space, VirtAddr address,
             std::span<const std::byte> source);
// Flushes what has frames in the range, without a fence; the first fault that is not demand-zero.
Copied flush(const memory::PhysicalMemory& memory, detail::SpaceState& space, VirtAddr address,
             std::size_t size_bytes);

// The mappings in the range; what reaches out of it is cut off at its ends. Of a file, the name is
// that of its object (format/file_record.hpp), which leads to the path.
Result<std::vector<Mapping>> maps(const memory::PhysicalMemory& memory, detail::SpaceState& space,
                                  table::PageRange pages);
SpaceInfo info(const memory::PhysicalMemory& memory, const detail::SpaceState& space);

}  // namespace holdfast::space
