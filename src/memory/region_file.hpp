// The file of an external region: made, found again, and told from what only looks like it
// (format/region_header.hpp).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "format/region_header.hpp"
#include "format/superblock.hpp"
#include "holdfast/region.hpp"
#include "pool/pool.hpp"

namespace holdfast::memory {

// How the files of regions are mapped: as the pool is.
enum class Files : std::uint8_t {
    as_they_are,
    as_pmem,    // emulated
    as_copies,  // what is written is this process's own, and the file keeps every byte
};

Result<std::unique_ptr<pool::ForeignMemory>> open_region_memory(const std::string& path,
                                                                Files files);

// What was found at a region's path.
struct FoundFile {
    RegionState state = RegionState::missing;
    std::string trouble;                          // a sentence, unless attached
    std::unique_ptr<pool::ForeignMemory> memory;  // if attached or shrunk
    std::uint64_t reachable_frames = 0;
};

format::RegionHeader& header_of(const pool::ForeignMemory& memory);
// The header's stamp; nothing if it fails its check.
std::optional<std::uint64_t> stamp_of(const pool::ForeignMemory& memory);
std::uint64_t random_stamp();

// Compares the file with the region's record; changes nothing.
FoundFile find_region_file(const format::Superblock& superblock, const format::RegionRecord& record,
                           const std::string& path, Files files);

// Makes a file for the region, durable with its header when this returns. Nothing of it is left
// after an error. `record` has UUID, generation, stamp and file offset; its number of frames is set
// from the size. A device that holds a region already is refused with already_exists.
Result<std::unique_ptr<pool::ForeignMemory>> make_region_file(const format::Superblock& superblock,
                                                              format::RegionRecord& record,
                                                              const std::string& path,
                                                              const ExternalRegionOptions& options,
                                                              Files files);

// How the record names the file: relative to the pool's folder if it lies in or below it, so that
// both can be moved together.
std::string stored_path(const pool::Pool& pool, const std::string& path);
// The bytes of a path record.
std::string encode_path(const std::string& stored);
// The path that the region's record names, to be opened as it is; nothing if it fails its check.
std::optional<std::string> region_path(const pool::Pool& pool, const format::RegionRecord& record);

}  // namespace holdfast::memory
