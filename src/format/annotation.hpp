// What the tables cannot say about a range: a name, or the file it is of, and whether it is still
// the same.
//
// There is no record for a plain mapping: the page table is the ordered index of what is mapped,
// with its protection, and demand-zero, guard, swapped and file-backed ranges are absent entries in
// it. An annotation lies over such a range. It is stored in an ordered map of the space:
//   key    8 bytes  first page number, most significant byte first, so that keys sort
//   value  8 bytes  number of pages
//          8 bytes  offset of the first byte in what the name names, or in the file
//          8 bytes  mark: what handles to (parts of) the range know it by, 0 if none was taken; it
//                   is never given again, so what is mapped here later has another
//          4 bytes  CRC-32 over key, the words above and the name
//          4 bytes  length of the name; in the highest byte Backing
//         (8 bytes  of a file: the owner of the file object (file_record.hpp), which has the path)
//          rest     the name, and zeros up to a multiple of 64 bytes: values then come in few
//          sizes,
//                   and libpmemobj's heap spends a chunk of 256 KiB on each size it meets
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "format/crc.hpp"
#include "holdfast/types.hpp"

namespace holdfast::format {

// What pages of the range that were never touched hold.
enum class Backing : std::uint8_t {
    none = 0,          // the tables say it
    private_file = 1,  // the file's bytes, which nobody else sees change
    shared_file = 2,   // the file's bytes, in frames that all who map it share
};

struct Annotation {
    std::uint64_t first_page = 0;
    std::uint64_t page_count = 0;
    std::uint64_t name_offset = 0;
    std::uint64_t mark = 0;
    std::string name = {};
    Backing backing = Backing::none;
    std::uint64_t file = 0;  // its object's owner, unless there is no backing

    std::uint64_t end_page() const { return first_page + page_count; }
    // Whether `maps` has something to show for it; others are there for a handle.
    bool is_shown() const { return !name.empty() || backing != Backing::none; }
    // Of a page in the range, its number in the file.
    std::uint64_t file_page(std::uint64_t page) const {
        return (name_offset >> kPageShift) + (page - first_page);
    }

    static std::string encode_key(std::uint64_t first_page) {
        std::string key(8, '\0');
        for (unsigned i = 0; i < 8; ++i)
            key[i] = static_cast<char>(first_page >> (8 * (7 - i)) & 0xff);
        return key;
    }
    std::string encode_value() const {
        const std::uint64_t words[kWords] = {
            page_count, name_offset, mark,
            check() | std::uint64_t{name.size()} << 32 | static_cast<std::uint64_t>(backing) << 56};
        std::string value(padded_size(file_bytes(backing) + name.size()), '\0');
        std::memcpy(value.data(), words, sizeof words);
        std::memcpy(value.data() + sizeof words, &file, file_bytes(backing));
        std::memcpy(value.data() + sizeof words + file_bytes(backing), name.data(), name.size());
        return value;
    }
    // Nothing if key or value are not what `encode` made.
    static std::optional<Annotation> decode(std::string_view key, std::string_view value) {
        std::uint64_t words[kWords];
        if (key.size() != 8 || value.size() < sizeof words) return std::nullopt;
        std::memcpy(words, value.data(), sizeof words);
        const std::uint64_t name_length = words[3] >> 32 & 0xff'ffff;
        const auto backing = static_cast<Backing>(words[3] >> 56);
        const std::size_t name_at = sizeof words + file_bytes(backing);
        if (backing > Backing::shared_file || name_length > value.size() ||
            value.size() != padded_size(name_at - sizeof words + name_length) ||
            value.find_first_not_of('\0', name_at + name_length) != std::string_view::npos)
            return std::nullopt;
        Annotation annotation{.page_count = words[0],
                              .name_offset = words[1],
                              .mark = words[2],
                              .name = std::string(value.substr(name_at, name_length)),
                              .backing = backing};
        std::memcpy(&annotation.file, value.data() + sizeof words, file_bytes(backing));
        for (char byte : key)
            annotation.first_page = annotation.first_page << 8 | static_cast<std::uint8_t>(byte);
        if (annotation.check() != static_cast<std::uint32_t>(words[3])) return std::nullopt;
        return annotation;
    }

    friend bool operator==(const Annotation&, const Annotation&) = default;

  private:
    static constexpr std::size_t kWords = 4;
    static constexpr std::size_t padded_size(std::size_t rest) {
        return (kWords * sizeof(std::uint64_t) + rest + 63) / 64 * 64;
    }
    static constexpr std::size_t file_bytes(Backing backing) {
        return backing == Backing::none ? 0 : sizeof(std::uint64_t);
    }
    std::uint32_t check() const {
        Crc32 crc;
        if (backing != Backing::none)
            crc.add_bytes(static_cast<std::uint64_t>(backing), 1).add_bytes(file, 8);
        return crc.add_bytes(first_page, 8)
            .add_bytes(page_count, 8)
            .add_bytes(name_offset, 8)
            .add_bytes(mark, 8)
            .add({reinterpret_cast<const std::byte*>(name.data()), name.size()})
            .value();
    }
};

}  // namespace holdfast::format
