// A file object: what the store knows of a mapped file. It is a space record of SpaceKind::file
// (space_record.hpp), with an owner and a tree of tables of its own, in which the page numbers are
// those of the file: the pages that shared mappings have loaded. The frame of the space record
// holds this record, too, which says which file it is:
//
//   offset size
//     1024    8  magic "FILE-OBJ"
//     1032    8  device
//     1040    8  inode
//     1048    8  size in bytes
//     1056    8  modification time, nanoseconds since 1970
//     1064    4  FileState
//     1068    4  length of the path
//     1072    8  CRC-32 over bytes 1024..1071 and the path, zero-extended
//     1080       the path, absolute and without links, not terminated
//
// The record's name in the directory of spaces is one that no space can have: a control character,
// and the owner. So each of the two leads to the other without a map between them.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "format/crc.hpp"
#include "format/frame_metadata.hpp"
#include "holdfast/types.hpp"

namespace holdfast::format {

inline constexpr std::uint64_t kFileMagic = 0x4a42'4f2d'454c'4946;  // "FILE-OBJ" in memory
inline constexpr std::size_t kFileRecordAt = 1024;
inline constexpr std::size_t kFilePathMax = 2048;
inline constexpr char kFileNamePrefix = '\x01';

enum class FileState : std::uint32_t {
    settled = 1,  // as the record says
    // Pages in the pool are being written to it, or were when a process ended: its modification
    // time says nothing.
    being_written = 2,
    // Pages in the pool are being replaced by the file's: they are of two times, and nobody may use
    // them.
    being_replaced = 3,
};

struct FileRecord {
    std::uint64_t magic;
    std::uint64_t device;
    std::uint64_t inode;
    std::uint64_t size_bytes;
    std::int64_t modified_ns;
    FileState state;
    std::uint32_t path_length;
    std::uint64_t checksum;
    char path[kFilePathMax];

    std::string_view path_view() const { return {path, path_length}; }
    std::uint64_t computed_checksum() const {
        return Crc32()
            .add({reinterpret_cast<const std::byte*>(this), offsetof(FileRecord, checksum)})
            .add({reinterpret_cast<const std::byte*>(path), path_length})
            .value();
    }
    bool is_valid() const {
        return magic == kFileMagic && path_length <= kFilePathMax &&
               checksum == computed_checksum() && state >= FileState::settled &&
               state <= FileState::being_replaced;
    }
    // So many bytes of it are in use.
    std::size_t used_bytes() const { return offsetof(FileRecord, path) + path_length; }

    static const FileRecord& of(const void* space_record) {
        return *reinterpret_cast<const FileRecord*>(static_cast<const std::byte*>(space_record) +
                                                    kFileRecordAt);
    }
    static std::string name_of(OwnerId owner) {
        std::string name(1, kFileNamePrefix);
        for (unsigned digit = 5; digit-- > 0;)
            name += "0123456789abcdef"[owner >> (4 * digit) & 15];
        return name;
    }
    // Nothing if it is the name of a space.
    static std::optional<OwnerId> owner_of(std::string_view name) {
        OwnerId owner = 0;
        if (name.size() != 6 || name.front() != kFileNamePrefix) return std::nullopt;
        const auto [end, error] = std::from_chars(name.data() + 1, name.data() + 6, owner, 16);
        if (error != std::errc() || end != name.data() + 6) return std::nullopt;
        return owner;
    }
};
static_assert(offsetof(FileRecord, state) == 40 && offsetof(FileRecord, checksum) == 48);
static_assert(offsetof(FileRecord, path) == 56 && std::is_trivially_copyable_v<FileRecord>);
static_assert(kFileRecordAt + sizeof(FileRecord) <= kPageSize && kOwnerCount <= 1u << 20);

}  // namespace holdfast::format
