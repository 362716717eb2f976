// What the tables cannot say about a range: a name, and whether it is still the same. Later
// backings (files, shared objects) join it.
//
// There is no record for a plain mapping: the page table is the ordered index of what is mapped,
// with its protection, and demand-zero, guard, swapped and file-backed ranges are absent entries in
// it. An annotation lies over such a range. It is stored in an ordered map of the space:
//   key    8 bytes  first page number, most significant byte first, so that keys sort
//   value  8 bytes  number of pages
//          8 bytes  offset of the first byte in what the name names
//          8 bytes  mark: what handles to (parts of) the range know it by, 0 if none was taken; it
//                   is never given again, so what is mapped here later has another
//          4 bytes  CRC-32 over key, the words above and the name
//          4 bytes  length of the name
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

namespace holdfast::format {

struct Annotation {
    std::uint64_t first_page = 0;
    std::uint64_t page_count = 0;
    std::uint64_t name_offset = 0;
    std::uint64_t mark = 0;
    std::string name = {};

    std::uint64_t end_page() const { return first_page + page_count; }

    static std::string encode_key(std::uint64_t first_page) {
        std::string key(8, '\0');
        for (unsigned i = 0; i < 8; ++i)
            key[i] = static_cast<char>(first_page >> (8 * (7 - i)) & 0xff);
        return key;
    }
    std::string encode_value() const {
        const std::uint64_t words[kWords] = {page_count, name_offset, mark,
                                             check() | std::uint64_t{name.size()} << 32};
        std::string value(padded_size(name.size()), '\0');
        std::memcpy(value.data(), words, sizeof words);
        std::memcpy(value.data() + sizeof words, name.data(), name.size());
        return value;
    }
    // Nothing if key or value are not what `encode` made.
    static std::optional<Annotation> decode(std::string_view key, std::string_view value) {
        std::uint64_t words[kWords];
        if (key.size() != 8 || value.size() < sizeof words) return std::nullopt;
        std::memcpy(words, value.data(), sizeof words);
        const std::uint64_t name_length = words[3] >> 32;
        if (name_length > value.size() || value.size() != padded_size(name_length) ||
            value.find_first_not_of('\0', sizeof words + name_length) != std::string_view::npos)
            return std::nullopt;
        Annotation annotation{.page_count = words[0],
                              .name_offset = words[1],
                              .mark = words[2],
                              .name = std::string(value.substr(sizeof words, name_length))};
        for (char byte : key)
            annotation.first_page = annotation.first_page << 8 | static_cast<std::uint8_t>(byte);
        if (annotation.check() != static_cast<std::uint32_t>(words[3])) return std::nullopt;
        return annotation;
    }

    friend bool operator==(const Annotation&, const Annotation&) = default;

  private:
    static constexpr std::size_t kWords = 4;
    static constexpr std::size_t padded_size(std::size_t name_length) {
        return (kWords * sizeof(std::uint64_t) + name_length + 63) / 64 * 64;
    }
    std::uint32_t check() const {
        return Crc32()
            .add_bytes(first_page, 8)
            .add_bytes(page_count, 8)
            .add_bytes(name_offset, 8)
            .add_bytes(mark, 8)
            .add({reinterpret_cast<const std::byte*>(name.data()), name.size()})
            .value();
    }
};

}  // namespace holdfast::format
