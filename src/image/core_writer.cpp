#include "image/core_writer.hpp"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "pool/descriptor.hpp"

namespace holdfast::image {
namespace {

constexpr std::uint64_t page_ceil(std::uint64_t bits) {
    return (bits + kPageSize - 1) & ~(kPageSize - 1);
}

void append(std::string& bytes, const void* data, std::size_t size_bytes) {
    bytes.append(static_cast<const char*>(data), size_bytes);
    bytes.append((4 - bytes.size() % 4) % 4, '\0');
}

void append_note(std::string& notes, std::uint32_t type, std::string_view descriptor) {
    Elf64_Nhdr header{};
    header.n_namesz = sizeof "CORE";
    header.n_descsz = static_cast<Elf64_Word>(descriptor.size());
    header.n_type = type;
    append(notes, &header, sizeof header);
    append(notes, "CORE", sizeof "CORE");
    append(notes, descriptor.data(), descriptor.size());
}

// As Linux writes it (fs/binfmt_elf.c, fill_files_note), with offsets in pages where they are whole
// pages, all of them.
std::string file_note(const std::vector<CoreSegment>& segments) {
    std::vector<const CoreSegment*> named;
    std::uint64_t unit = kPageSize;
    for (const CoreSegment& segment : segments) {
        // The note ends a name with a zero byte.
        if (segment.is_lost || segment.name.empty() || segment.name.find('\0') != std::string::npos)
            continue;
        named.push_back(&segment);
        if (segment.name_offset % kPageSize != 0) unit = 1;
    }
    if (named.empty()) return {};
    std::vector<std::uint64_t> words = {named.size(), unit};
    std::string names;
    for (const CoreSegment* segment : named) {
        words.push_back(segment->range.start.bits());
        words.push_back(segment->range.end().bits());
        words.push_back(segment->name_offset / unit);
        names += segment->name;
        names += '\0';
    }
    return std::string(reinterpret_cast<const char*>(words.data()),
                       words.size() * sizeof(std::uint64_t)) +
           names;
}

// One thread, whose registers are zeros: without one, debuggers see no process.
std::string notes_of(const std::string& program, const std::vector<CoreSegment>& segments) {
    std::string notes;
    prstatus_t status{};
    status.pr_pid = 1;
    append_note(notes, NT_PRSTATUS, {reinterpret_cast<const char*>(&status), sizeof status});
    prpsinfo_t info{};
    info.pr_pid = 1;
    info.pr_sname = 'R';
    program.copy(info.pr_fname, sizeof info.pr_fname - 1);
    program.copy(info.pr_psargs, sizeof info.pr_psargs - 1);
    append_note(notes, NT_PRPSINFO, {reinterpret_cast<const char*>(&info), sizeof info});
    if (const std::string files = file_note(segments); !files.empty())
        append_note(notes, NT_FILE, files);
    return notes;
}

}  // namespace

std::unexpected<Error> CoreWriter::failed(const char* action) const {
    const int number = errno;
    return fail(pool::code_of(number),
                fmt::format("{}: cannot {}: {}", path_, action, std::strerror(number)));
}

Result<CoreWriter> CoreWriter::create(const std::string& path, const std::string& program,
                                      std::vector<CoreSegment> segments) {
    CoreWriter writer;
    writer.path_ = path;
    struct stat status{};
    if (stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: not a regular file; name another", path));
    writer.partial_path_ = fmt::format("{}.partial-{}", path, getpid());
    writer.file_ = open(writer.partial_path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (writer.file_ < 0) return writer.failed("make the file");
    writer.segments_ = std::move(segments);
    const std::string notes = notes_of(program, writer.segments_);
    if (auto done = writer.write_headers(notes); !done) return std::unexpected(done.error());
    return writer;
}

// The headers are as libelf would write them, which has no way to write a count of segments that
// does not fit into the file's header.
static_assert(std::endian::native == std::endian::little);

Result<void> CoreWriter::write_headers(const std::string& notes) {
    const std::size_t count = segments_.size() + 1;
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_CORE;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_ehsize = sizeof header;
    header.e_phoff = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = static_cast<Elf64_Half>(std::min<std::size_t>(count, PN_XNUM));
    std::uint64_t at = sizeof header + count * sizeof(Elf64_Phdr);
    Elf64_Shdr first_section{};
    if (count >= PN_XNUM) {
        // The number of segments then stands in the first section, which is of no other use.
        header.e_shoff = at;
        header.e_shentsize = sizeof first_section;
        header.e_shnum = 1;
        first_section.sh_size = 1;  // the number of sections
        first_section.sh_info = static_cast<Elf64_Word>(count);
        at += sizeof first_section;
    }
    std::vector<Elf64_Phdr> segments;
    segments.reserve(count);
    segments.push_back({.p_type = PT_NOTE,
                        .p_flags = 0,
                        .p_offset = at,
                        .p_vaddr = 0,
                        .p_paddr = 0,
                        .p_filesz = notes.size(),
                        .p_memsz = 0,
                        .p_align = 4});
    std::uint64_t end = page_ceil(at + notes.size());
    for (const CoreSegment& segment : segments_) {
        const std::uint64_t in_file = segment.is_lost ? 0 : segment.range.size_bytes;
        segments.push_back(
            {.p_type = PT_LOAD,
             .p_flags = (segment.protection.readable() || segment.is_lost ? PF_R : 0U) |
                        (segment.protection.writable() ? PF_W : 0U) |
                        (segment.protection.executable() ? PF_X : 0U),
             .p_offset = end,
             .p_vaddr = segment.range.start.bits(),
             .p_paddr = 0,
             .p_filesz = in_file,
             .p_memsz = segment.range.size_bytes,
             .p_align = kPageSize});
        offsets_.push_back(end);
        end += in_file;
    }
    // Everything that is not written is a hole.
    if (ftruncate(file_, static_cast<off_t>(end)) != 0) return failed("make the file so long");
    if (auto done = write_at(0, std::as_bytes(std::span(&header, 1))); !done) return done;
    if (auto done = write_at(header.e_phoff, std::as_bytes(std::span(segments))); !done)
        return done;
    if (header.e_shoff != 0) {
        auto done = write_at(header.e_shoff, std::as_bytes(std::span(&first_section, 1)));
        if (!done) return done;
    }
    return write_at(at, std::as_bytes(std::span(notes)));
}

Result<void> CoreWriter::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const ssize_t done = pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return failed("write");
        bytes = bytes.subspan(static_cast<std::size_t>(done));
        offset += static_cast<std::uint64_t>(done);
    }
    return {};
}

Result<void> CoreWriter::write(std::size_t segment, VirtAddr address,
                               std::span<const std::byte> bytes) {
    return write_at(offsets_[segment] + (address - segments_[segment].range.start), bytes);
}

Result<void> CoreWriter::finish() {
    if (std::rename(partial_path_.c_str(), path_.c_str()) != 0)
        return failed("move the file to its place");
    close(std::exchange(file_, -1));
    return {};
}

CoreWriter::CoreWriter(CoreWriter&& other) noexcept
    : path_(std::move(other.path_)),
      partial_path_(std::move(other.partial_path_)),
      file_(std::exchange(other.file_, -1)),
      segments_(std::move(other.segments_)),
      offsets_(std::move(other.offsets_)) {}

CoreWriter::~CoreWriter() {
    if (file_ < 0) return;
    close(file_);
    unlink(partial_path_.c_str());
}

}  // namespace holdfast::image
