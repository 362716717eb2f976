// The memory of a stopped process: what is in it, and what need not be looked at.
//
// Untouched memory is not read, since reading it would make the kernel find pages for it: a sparse
// mapping of 100 GiB costs as much as the pages in it that were ever written.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "holdfast/error.hpp"
#include "image/file.hpp"
#include "image/process_maps.hpp"

namespace holdfast::image {

class ProcessMemory {
  public:
    // Through /proc/THREAD; `process` is what messages call it.
    static Result<ProcessMemory> open(pid_t thread, pid_t process);

    Result<std::vector<ProcessMapping>> mappings() const;

    // Reads whole pages from a range that is mapped, as many as come without a gap; 0 if the first
    // one cannot be read. not_found if the process has ended.
    Result<std::size_t> read(VirtAddr address, std::span<std::byte> destination) const;

  private:
    ProcessMemory(pid_t thread, pid_t process, File memory)
        : thread_(thread), process_(process), memory_(std::move(memory)) {}

    pid_t thread_, process_;
    File memory_;
};

// Which pages of one mapping may hold anything but zeros.
class ContentMap {
  public:
    ContentMap(pid_t thread, const ProcessMapping& mapping);

    // Up to here pages exist at all: a file may be shorter than its mapping.
    VirtAddr readable_end() const { return readable_end_; }
    // The next such pages at or after `from`, before `end`; everything between `from` and them
    // reads as zeros. Addresses must ascend from call to call.
    std::optional<Range> next(VirtAddr from, VirtAddr end);

  private:
    std::optional<Range> next_populated(std::uint64_t from, std::uint64_t end);
    std::optional<Range> next_in_file(std::uint64_t from, std::uint64_t end);
    void look_ahead(std::uint64_t from, std::uint64_t end);
    bool scan(std::uint64_t from, std::uint64_t end);
    bool read_entries(std::uint64_t from, std::uint64_t end);

    const ProcessMapping& mapping_;
    VirtAddr readable_end_;
    std::optional<File> pagemap_;  // nothing: every page counts as populated
    std::optional<File> file_;     // nothing: anonymous, or the file's holes are not known
    std::vector<Range> populated_;
    std::size_t next_populated_ = 0;
    std::uint64_t known_until_ = 0;
};

}  // namespace holdfast::image
