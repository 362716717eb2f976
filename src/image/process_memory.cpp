#include "image/process_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace holdfast::image {
namespace {

std::uint64_t page_ceil(std::uint64_t bits) { return (bits + kPageSize - 1) & ~(kPageSize - 1); }

// PAGEMAP_SCAN of Linux 6.7, as its linux/fs.h has it; the headers of older systems do not.
struct PageRegion {
    std::uint64_t start, end, categories;
};
struct ScanArgument {
    std::uint64_t size_bytes, flags, start, end, walk_end, regions, region_count, pages_max;
    std::uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
static_assert(sizeof(PageRegion) == 24 && sizeof(ScanArgument) == 96);
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArgument);
constexpr std::uint64_t kIsPresent = 1 << 3, kIsSwapped = 1 << 4, kIsZeroFrame = 1 << 5;

// Entries of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
constexpr std::uint64_t kEntryPresent = std::uint64_t{1} << 63,
                        kEntrySwapped = std::uint64_t{1} << 62;

// The file of this path, if it is the one that is mapped.
std::optional<File> open_if_mapped(const std::string& path, const ProcessMapping& mapping) {
    auto file = File::open(path);
    struct stat status{};
    if (!file || fstat(file->descriptor(), &status) != 0 || status.st_ino != mapping.inode ||
        status.st_dev != mapping.device)
        return std::nullopt;
    return std::move(*file);
}

// The mapped file, if it is a regular one and there is a way to it.
std::optional<File> open_mapped_file(pid_t thread, const ProcessMapping& mapping) {
    if (mapping.inode == 0) return std::nullopt;
    // This link leads to the file even when its name is gone, but only a privileged importer may
    // follow it.
    if (auto file = File::open(fmt::format("/proc/{}/map_files/{:x}-{:x}", thread,
                                           mapping.range.start.bits(), mapping.range.end().bits())))
        return std::move(*file);
    if (auto file = open_if_mapped(mapping.name, mapping)) return file;
    // A memfd or a deleted file that the process holds open still.
    std::error_code ignored;
    for (const auto& item :
         std::filesystem::directory_iterator(fmt::format("/proc/{}/fd", thread), ignored))
        if (auto file = open_if_mapped(item.path(), mapping)) return file;
    return std::nullopt;
}

}  // namespace

// --- ProcessMemory ---

Result<ProcessMemory> ProcessMemory::open(pid_t thread, pid_t process) {
    // The memory of another process, by its pages: unlike process_vm_readv(2), this neither pins
    // them nor breaks copy-on-write sharing with a forked parent or child, which would take memory.
    auto memory = File::open_special(fmt::format("/proc/{}/mem", thread));
    if (!memory) return std::unexpected(std::move(memory.error()));
    return ProcessMemory(thread, process, std::move(*memory));
}

Result<std::vector<ProcessMapping>> ProcessMemory::mappings() const {
    auto text = read_proc_file(fmt::format("/proc/{}/maps", thread_));
    if (!text) return std::unexpected(std::move(text.error()));
    return parse_maps(*text);
}

Result<std::size_t> ProcessMemory::read(VirtAddr address, std::span<std::byte> destination) const {
    for (;;) {
        const ssize_t size_bytes = pread(memory_.descriptor(), destination.data(),
                                         destination.size(), static_cast<off_t>(address.bits()));
        if (size_bytes > 0) return static_cast<std::size_t>(size_bytes) & ~(kPageSize - 1);
        if (size_bytes == 0)
            return fail(ErrorCode::not_found,
                        fmt::format("process {} ended while it was imported; nothing was stored",
                                    process_));
        if (errno == EIO || errno == EFAULT) return 0;
        if (errno != EINTR)
            return fail(ErrorCode::io, fmt::format("memory of process {} at {:#x}: {}", process_,
                                                   address.bits(), std::strerror(errno)));
    }
}

// --- ContentMap ---

ContentMap::ContentMap(pid_t thread, const ProcessMapping& mapping)
    : mapping_(mapping),
      readable_end_(mapping.range.end()),
      file_(open_mapped_file(thread, mapping)),
      known_until_(mapping.range.start.bits()) {
    if (file_) {
        const std::uint64_t size_bytes = page_ceil(file_->size_bytes().value_or(~kPageSize));
        const std::uint64_t behind =
            size_bytes > mapping.file_offset ? size_bytes - mapping.file_offset : 0;
        readable_end_ = mapping.range.start + std::min(behind, mapping.range.size_bytes);
    }
    if (file_ || mapping.is_anonymous())
        if (auto pagemap = File::open_special(fmt::format("/proc/{}/pagemap", thread)))
            pagemap_ = std::move(*pagemap);
}

std::optional<Range> ContentMap::next(VirtAddr from, VirtAddr end) {
    std::optional<Range> in_file, populated;
    if (file_) in_file = next_in_file(from.bits(), end.bits());
    // A shared page has what the file has. A private one may be a written copy of a hole.
    if (!file_ || !mapping_.shared) populated = next_populated(from.bits(), end.bits());
    if (!in_file) return populated;
    if (!populated) return in_file;
    return in_file->start <= populated->start ? in_file : populated;
}

std::optional<Range> ContentMap::next_in_file(std::uint64_t from, std::uint64_t end) {
    const std::uint64_t base = mapping_.range.start.bits() - mapping_.file_offset;
    const off_t data = lseek(file_->descriptor(), static_cast<off_t>(from - base), SEEK_DATA);
    if (data < 0)
        // No more data; or a file system that cannot say, whose pages must then all be read.
        return errno == ENXIO ? std::nullopt : std::optional(Range{VirtAddr(from), end - from});
    const std::uint64_t start =
        std::max(from, (static_cast<std::uint64_t>(data) + base) & ~(kPageSize - 1));
    if (start >= end) return std::nullopt;
    const off_t hole = lseek(file_->descriptor(), data, SEEK_HOLE);
    const std::uint64_t stop =
        hole < 0 ? end : std::min(end, page_ceil(static_cast<std::uint64_t>(hole) + base));
    return Range{VirtAddr(start), stop - start};
}

std::optional<Range> ContentMap::next_populated(std::uint64_t from, std::uint64_t end) {
    if (!pagemap_) return Range{VirtAddr(from), end - from};
    for (;;) {
        while (next_populated_ < populated_.size()) {
            const Range& run = populated_[next_populated_];
            if (run.end().bits() <= from) {
                ++next_populated_;
                continue;
            }
            if (run.start.bits() >= end) return std::nullopt;
            const std::uint64_t start = std::max(from, run.start.bits());
            return Range{VirtAddr(start), std::min(end, run.end().bits()) - start};
        }
        const std::uint64_t unknown = std::max(from, known_until_);
        if (unknown >= end) return std::nullopt;
        look_ahead(unknown, end);
    }
}

void ContentMap::look_ahead(std::uint64_t from, std::uint64_t end) {
    populated_.clear();
    next_populated_ = 0;
    if (scan(from, end) || read_entries(from, end)) return;
    populated_.assign(1, Range{VirtAddr(from), end - from});
    known_until_ = end;
}

// The kernel skips empty tables whole: terabytes of untouched addresses cost next to nothing.
bool ContentMap::scan(std::uint64_t from, std::uint64_t end) {
    std::array<PageRegion, 512> regions;
    ScanArgument argument{};
    argument.size_bytes = sizeof argument;
    argument.start = from;
    argument.end = end;
    argument.regions = reinterpret_cast<std::uintptr_t>(regions.data());
    argument.region_count = regions.size();
    argument.category_inverted = argument.category_mask = kIsZeroFrame;
    argument.category_anyof_mask = kIsPresent | kIsSwapped;
    const int count = ioctl(pagemap_->descriptor(), kPagemapScan, &argument);
    if (count < 0 || argument.walk_end <= from) return false;
    for (int i = 0; i < count; ++i) {
        const PageRegion& region = regions[static_cast<std::size_t>(i)];
        populated_.push_back({VirtAddr(region.start), region.end - region.start});
    }
    known_until_ = argument.walk_end;
    return true;
}

bool ContentMap::read_entries(std::uint64_t from, std::uint64_t end) {
    std::vector<std::uint64_t> entries(std::min<std::uint64_t>((end - from) >> kPageShift, 65536));
    const auto size_bytes = pagemap_->read((from >> kPageShift) * sizeof entries[0],
                                           std::as_writable_bytes(std::span(entries)));
    if (!size_bytes || *size_bytes < sizeof entries[0]) return false;
    entries.resize(*size_bytes / sizeof entries[0]);
    for (std::size_t i = 0; i < entries.size(); ++i) {
        if ((entries[i] & (kEntryPresent | kEntrySwapped)) == 0) continue;
        const VirtAddr page(from + (i << kPageShift));
        if (!populated_.empty() && populated_.back().end() == page)
            populated_.back().size_bytes += kPageSize;
        else
            populated_.push_back({page, kPageSize});
    }
    known_until_ = from + (entries.size() << kPageShift);
    return true;
}

}  // namespace holdfast::image
