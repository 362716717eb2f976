// The import of a core dump: what is in it, and what it leaves to the files that were mapped.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "image/elf_file.hpp"
#include "image/image_writer.hpp"

namespace holdfast {
namespace {

using image::ElfFile;
using image::File;
using image::ImageWriter;
using image::MappedFile;
using image::Part;

std::uint64_t page_ceil(std::uint64_t bits) { return (bits + kPageSize - 1) & ~(kPageSize - 1); }

// Cuts a segment where mapped files begin and end, so that each part has one name.
std::vector<Part> parts_of(const GElf_Phdr& segment, const std::vector<MappedFile>& files) {
    const Protection protection = image::segment_protection(segment);
    std::vector<Part> parts;
    VirtAddr at(segment.p_vaddr);
    const VirtAddr end = at + page_ceil(segment.p_memsz);
    for (const MappedFile& file : files) {
        const VirtAddr from = std::max(at, file.range.start), to = std::min(end, file.range.end());
        if (from >= to) continue;
        if (at < from) parts.push_back({{at, from - at}, protection, "", 0});
        parts.push_back({{from, to - from},
                         protection,
                         file.path,
                         file.file_offset + (from - file.range.start)});
        at = to;
    }
    if (at < end) parts.push_back({{at, end - at}, protection, "", 0});
    return parts;
}

// What may be done with a part of a file that the dump says nothing of: what the file itself says
// if it is a program or library, less `w`, since changed pages would have been dumped.
std::uint32_t flags_in_file(const MappedFile& file) {
    const auto elf = ElfFile::open(file.path);
    const auto segments = elf ? elf->loadable_segments() : Result<std::vector<GElf_Phdr>>();
    if (elf && segments)
        for (const GElf_Phdr& segment : *segments)
            if (file.file_offset / kPageSize >= segment.p_offset / kPageSize &&
                file.file_offset < segment.p_offset + segment.p_filesz)
                return segment.p_flags & ~std::uint32_t{PF_W};
    return PF_R;
}

// gcore does not even mention the segments of programs and libraries that nobody has changed; the
// list of mapped files does. Adds them as segments that were left out.
void add_unmentioned(std::vector<GElf_Phdr>& segments, const std::vector<MappedFile>& files) {
    std::vector<GElf_Phdr> missing;
    for (const MappedFile& file : files) {
        VirtAddr at = file.range.start;
        const auto add_until = [&](VirtAddr end) {
            if (at >= end) return;
            MappedFile part = file;
            part.file_offset += at - file.range.start;
            GElf_Phdr segment{};
            segment.p_type = PT_LOAD;
            segment.p_flags = flags_in_file(part);
            segment.p_vaddr = at.bits();
            segment.p_memsz = end - at;
            missing.push_back(segment);
        };
        for (const GElf_Phdr& segment : segments) {
            const VirtAddr start(segment.p_vaddr), end = start + page_ceil(segment.p_memsz);
            if (end <= at || start >= file.range.end()) continue;
            add_until(start);
            at = std::max(at, end);
        }
        add_until(file.range.end());
    }
    segments.insert(segments.end(), missing.begin(), missing.end());
}

// Pages that the dump leaves out because the file has them.
Result<void> put_from_mapped_file(ImageWriter& writer, const Part& part, Range range) {
    const std::uint64_t offset = part.name_offset + (range.start - part.range.start);
    const auto file = File::open(part.name);
    const std::uint64_t size_bytes = file ? file->size_bytes().value_or(0) : 0;
    // A page is there if the file has at least its first byte. Zeros are not invented for others.
    const std::uint64_t there_bytes =
        size_bytes > offset ? std::min(range.size_bytes, page_ceil(size_bytes - offset)) : 0;
    if (there_bytes != 0) {
        auto done = image::put_from_file(writer, *file, offset, size_bytes - offset, part,
                                         {range.start, there_bytes});
        if (!done) return done;
    }
    if (there_bytes != range.size_bytes)
        writer.skip({range.start + there_bytes, range.size_bytes - there_bytes});
    return {};
}

Result<void> put_segment(ImageWriter& writer, const ElfFile& core, const GElf_Phdr& segment,
                         const std::vector<MappedFile>& files) {
    const VirtAddr start(segment.p_vaddr), dumped_end = start + page_ceil(segment.p_filesz);
    for (const Part& part : parts_of(segment, files)) {
        const VirtAddr part_end = part.range.end(),
                       middle = std::clamp(dumped_end, part.range.start, part_end);
        const Range dumped{part.range.start, middle - part.range.start};
        const Range left_out{middle, part_end - middle};
        if (dumped.size_bytes != 0) {
            const std::uint64_t into = dumped.start - start;
            auto done = image::put_from_file(writer, core.file(), segment.p_offset + into,
                                             segment.p_filesz - into, part, dumped);
            if (!done) return done;
        }
        if (left_out.size_bytes == 0) continue;
        if (!part.name.empty()) {
            if (auto done = put_from_mapped_file(writer, part, left_out); !done) return done;
        } else if (part.protection.writable() || segment.p_filesz != 0) {
            if (auto done = writer.put_zeros(part, left_out); !done) return done;
        } else {
            // The kernel's own pages, as [vvar]: neither dumped nor in a file.
            writer.skip(left_out);
        }
    }
    return {};
}

Result<ImportReport> import_segments(Store& store, const std::string& space_name,
                                     const std::string& path, const ImportOptions& options) {
    auto core = ElfFile::open(path);
    if (!core) return std::unexpected(std::move(core.error()));
    if (core->header().e_type != ET_CORE)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: an ELF file, but not a core dump; import a program as a "
                                "program (import_elf, `--elf`)",
                                path));
    auto segments = core->loadable_segments();
    if (!segments) return std::unexpected(std::move(segments.error()));
    const auto files = core->mapped_files();
    if (!files) return std::unexpected(files.error());

    const auto by_address = [](const GElf_Phdr& a, const GElf_Phdr& b) {
        return a.p_vaddr < b.p_vaddr;
    };
    std::sort(segments->begin(), segments->end(), by_address);
    add_unmentioned(*segments, *files);
    std::sort(segments->begin(), segments->end(), by_address);
    std::uint64_t total_bytes = 0;
    std::erase_if(*segments, [](const GElf_Phdr& segment) {
        // As in the import of a process: what the program could not read is not part of it, nor is
        // [vsyscall] in the supervisor half.
        return !image::segment_protection(segment).readable() || segment.p_vaddr >> 63 != 0;
    });
    for (const GElf_Phdr& segment : *segments) {
        if (segment.p_vaddr % kPageSize != 0)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("{}: the segment at {:#x} does not begin with a page, as "
                                    "those of a core dump do; the file is damaged",
                                    path, segment.p_vaddr));
        total_bytes += page_ceil(segment.p_memsz);
    }

    auto writer = ImageWriter::begin(store, space_name, options);
    if (!writer) return std::unexpected(std::move(writer.error()));
    writer->expect(total_bytes);
    for (const GElf_Phdr& segment : *segments)
        if (auto done = put_segment(*writer, *core, segment, *files); !done)
            return std::unexpected(std::move(done.error()));
    if (auto done = writer->finish(); !done) return std::unexpected(std::move(done.error()));
    return writer->commit();
}

}  // namespace

Result<ImportReport> import_core(Store& store, const std::string& space_name,
                                 const std::string& path, const ImportOptions& options) {
    return image::timed([&] { return import_segments(store, space_name, path, options); });
}

}  // namespace holdfast
