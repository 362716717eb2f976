// An ELF core dump that is being written: its headers, its notes, and the bytes of its
// segments, which lie where they lie in memory, so that what is never written is a hole.
//
// The file is made beside its place, and moved there by `finish`; nothing is left if the writer
// goes away before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "holdfast/types.hpp"

namespace holdfast::image {

struct CoreSegment {
    Range range;
    Protection protection;
    bool is_lost = false;  // in memory, and not in the file
    std::string name;      // for NT_FILE, with its offset; empty for none
    std::uint64_t name_offset = 0;
};

class CoreWriter {
  public:
    // Errors: invalid_argument (something else than a file is there), permission_denied, no_space,
    // io.
    static Result<CoreWriter> create(const std::string& path, const std::string& program,
                                     std::vector<CoreSegment> segments);
    CoreWriter(CoreWriter&& other) noexcept;
    CoreWriter& operator=(CoreWriter&&) = delete;
    ~CoreWriter();

    const std::vector<CoreSegment>& segments() const { return segments_; }
    // Bytes of one segment.
    Result<void> write(std::size_t segment, VirtAddr address, std::span<const std::byte> bytes);
    // Commit point: the file is there.
    Result<void> finish();

  private:
    CoreWriter() = default;
    Result<void> write_headers(const std::string& notes);
    Result<void> write_at(std::uint64_t offset, std::span<const std::byte> bytes);
    std::unexpected<Error> failed(const char* action) const;

    std::string path_, partial_path_;
    int file_ = -1;
    std::vector<CoreSegment> segments_;
    std::vector<std::uint64_t> offsets_;  // of the segments in the file
};

}  // namespace holdfast::image
