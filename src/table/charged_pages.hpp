// Which pages count for the commit charge (include/holdfast/overcommit.hpp): those that are mapped
// private and writable.
#pragma once

#include <optional>

#include "format/entry.hpp"
#include "format/frame_metadata.hpp"

namespace holdfast::table {

// Of a leaf, or of an absent range; `metadata_of(frame)` may return nothing.
template <typename MetadataOf>
bool is_charged(format::Entry entry, const MetadataOf& metadata_of) {
    if (entry.is_empty() || !entry.mapped_protection().writable()) return false;
    if (!entry.is_present())
        return entry.absent_kind() == format::AbsentKind::demand_zero ||
               entry.absent_kind() == format::AbsentKind::swapped;
    // What is mapped shared was charged to nobody else either: it has its frame.
    const auto metadata = metadata_of(entry.frame());
    return !metadata || metadata->kind != format::FrameKind::shared_data;
}

}  // namespace holdfast::table
