// Where a store's own structures lie in its pool: what media faults and the fuzzer damage.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "holdfast/store.hpp"
#include "table/walk.hpp"

namespace holdfast::crash {

enum class StructureKind : std::uint8_t {
    fixed_part,        // of the superblock, under one checksum
    superblock_words,  // the rest of it: words with a check each
    region_record,
    metadata,  // of one frame
    table,
    space_record,
    limbo_page,
    build_record,
};
inline constexpr std::uint8_t kStructureKinds = 8;

// How many bytes of it mean something: of a frame, those that its record takes.
std::uint64_t size_of(StructureKind kind);

struct Structure {
    StructureKind kind{};
    std::string name;                    // "superblock", "metadata of table_1", "table_1"
    std::uint64_t offset = 0;            // in the pool
    FrameNumber frame = {};              // that it is, or whose metadata
    table::TablePosition position = {};  // of a table
    bool is_frame() const { return kind >= StructureKind::table; }
    std::uint64_t size_bytes() const { return size_of(kind); }
};

// All there are in the pool, each once: those that are reachable, in limbo and reserved for an
// interrupted call, by what the frames' metadata say. Of free frames the metadata of one of each
// region, and of the first of each extent that a build record names. Of region records one more
// than there are regions.
Result<std::vector<Structure>> structures_of(const Store& store);

}  // namespace holdfast::crash
