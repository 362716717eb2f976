#include "image/elf_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

namespace holdfast::image {
namespace {

std::unexpected<Error> cut_off(const File& file, const std::string& what) {
    return fail(
        ErrorCode::invalid_argument,
        fmt::format("{}: the file is cut off: {}; get a whole copy of it", file.path(), what));
}

// The descriptor of NT_FILE, as Linux writes it (fs/binfmt_elf.c, fill_files_note): a count, the
// unit of the offsets, `count` triples of start, end and offset, and as many names.
std::optional<std::vector<MappedFile>> decode_file_note(const char* bytes, std::size_t size_bytes) {
    constexpr std::size_t kWord = sizeof(std::uint64_t);
    const auto word = [&](std::size_t index) {
        std::uint64_t value = 0;
        std::memcpy(&value, bytes + index * kWord, kWord);
        return value;
    };
    if (size_bytes < 2 * kWord) return std::nullopt;
    const std::uint64_t count = word(0), unit_bytes = word(1);
    if (count > (size_bytes - 2 * kWord) / (3 * kWord)) return std::nullopt;
    std::size_t name_at = (2 + 3 * count) * kWord;
    std::vector<MappedFile> files;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t start = word(2 + 3 * i), end = word(3 + 3 * i);
        const std::size_t length = strnlen(bytes + name_at, size_bytes - name_at);
        if (end <= start || name_at + length == size_bytes) return std::nullopt;
        files.push_back({.range = {VirtAddr(start), end - start},
                         .file_offset = word(4 + 3 * i) * unit_bytes,
                         .path = std::string(bytes + name_at, length)});
        name_at += length + 1;
    }
    std::sort(files.begin(), files.end(), [](const MappedFile& a, const MappedFile& b) {
        return a.range.start < b.range.start;
    });
    return files;
}

}  // namespace

Result<ElfFile> ElfFile::open(const std::string& path) {
    elf_version(EV_CURRENT);
    auto file = File::open(path);
    if (!file) return std::unexpected(std::move(file.error()));
    Elf* const handle = elf_begin(file->descriptor(), ELF_C_READ, nullptr);
    ElfFile elf(std::move(*file), handle);
    const auto refuse = [&](const std::string& what) {
        return fail(ErrorCode::invalid_argument, fmt::format("{}: {}", path, what));
    };
    if (handle == nullptr || elf_kind(handle) != ELF_K_ELF)
        return refuse("not an ELF file; name a program or a core dump");
    std::size_t size_bytes = 0;
    const char* const identity = elf_getident(handle, &size_bytes);
    if (identity == nullptr || size_bytes < EI_NIDENT || identity[EI_CLASS] != ELFCLASS64)
        return refuse("not a 64-bit ELF file, and 32-bit address spaces are not supported");
    if (identity[EI_DATA] != ELFDATA2LSB)
        return refuse("a big-endian ELF file; only little-endian ones are supported");
    if (gelf_getehdr(handle, &elf.header_) == nullptr)
        return cut_off(elf.file_, "it ends within its header");
    return elf;
}

Result<std::vector<GElf_Phdr>> ElfFile::segments() const {
    std::size_t count = 0;
    std::vector<GElf_Phdr> segments;
    // A table that reaches beyond the file counts as none.
    const bool expected = header_.e_phoff != 0 && header_.e_phnum != 0;
    if (elf_getphdrnum(elf_.get(), &count) != 0 || (expected && count == 0))
        return cut_off(file_, "it ends within its table of segments");
    for (std::size_t i = 0; i < count; ++i) {
        GElf_Phdr segment;
        if (gelf_getphdr(elf_.get(), static_cast<int>(i), &segment) == nullptr)
            return cut_off(file_, "it ends within its table of segments");
        segments.push_back(segment);
    }
    return segments;
}

Result<std::vector<GElf_Phdr>> ElfFile::loadable_segments() const {
    auto all = segments();
    if (!all) return all;
    const auto file_size = file_.size_bytes();
    if (!file_size) return std::unexpected(file_size.error());
    std::vector<GElf_Phdr> loadable;
    for (const GElf_Phdr& segment : *all) {
        if (segment.p_type != PT_LOAD || segment.p_memsz == 0) continue;
        if (segment.p_filesz > segment.p_memsz ||
            segment.p_vaddr + segment.p_memsz + kPageSize < segment.p_vaddr)
            return fail(
                ErrorCode::invalid_argument,
                fmt::format("{}: the segment at {:#x} is damaged: {} bytes in memory, {} "
                            "in the file",
                            file_.path(), segment.p_vaddr, segment.p_memsz, segment.p_filesz));
        if (segment.p_filesz > *file_size || segment.p_offset > *file_size - segment.p_filesz)
            return cut_off(
                file_,
                fmt::format("the segment at {:#x} needs {} bytes from offset {} on, "
                            "and the file has {}",
                            segment.p_vaddr, segment.p_filesz, segment.p_offset, *file_size));
        loadable.push_back(segment);
    }
    if (loadable.empty())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: an ELF file without loadable segments", file_.path()));
    return loadable;
}

Result<std::vector<MappedFile>> ElfFile::mapped_files() const {
    auto all = segments();
    if (!all) return std::unexpected(std::move(all.error()));
    for (const GElf_Phdr& segment : *all) {
        if (segment.p_type != PT_NOTE || segment.p_filesz == 0) continue;
        Elf_Data* const data =
            elf_getdata_rawchunk(elf_.get(), static_cast<std::int64_t>(segment.p_offset),
                                 segment.p_filesz, segment.p_align == 8 ? ELF_T_NHDR8 : ELF_T_NHDR);
        if (data == nullptr) return cut_off(file_, "it ends within its notes");
        GElf_Nhdr note;
        std::size_t name_at = 0, descriptor_at = 0;
        const auto* const bytes = static_cast<const char*>(data->d_buf);
        for (std::size_t at = 0; (at = gelf_getnote(data, at, &note, &name_at, &descriptor_at));) {
            if (note.n_type != NT_FILE || note.n_namesz != sizeof "CORE" ||
                std::memcmp(bytes + name_at, "CORE", sizeof "CORE") != 0)
                continue;
            auto files = decode_file_note(bytes + descriptor_at, note.n_descsz);
            if (!files)
                return fail(
                    ErrorCode::invalid_argument,
                    fmt::format("{}: the list of mapped files (NT_FILE) is damaged", file_.path()));
            return std::move(*files);
        }
    }
    return std::vector<MappedFile>();
}

Protection segment_protection(const GElf_Phdr& segment) {
    Protection result = protection::u;
    if (segment.p_flags & PF_R) result = result | protection::r;
    if (segment.p_flags & PF_W) result = result | protection::w;
    if (segment.p_flags & PF_X) result = result | protection::x;
    return result;
}

Result<void> put_from_file(ImageWriter& writer, const File& file, std::uint64_t file_offset,
                           std::uint64_t size_bytes, const Part& part, Range range) {
    constexpr std::uint64_t kChunkBytes = std::uint64_t{2} << 20;
    std::vector<std::byte> buffer(std::min(kChunkBytes, range.size_bytes));
    for (std::uint64_t done_bytes = 0; done_bytes < range.size_bytes;) {
        const std::uint64_t left_bytes = range.size_bytes - done_bytes;
        if (done_bytes >= size_bytes)
            return writer.put_zeros(part, {range.start + done_bytes, left_bytes});
        // A dump of a sparse space is a sparse file.
        const std::uint64_t offset = file_offset + done_bytes;
        const std::uint64_t hole_bytes =
            std::min(left_bytes, (file.next_data(offset) - offset) & ~(kPageSize - 1));
        if (hole_bytes != 0) {
            auto done = writer.put_zeros(part, {range.start + done_bytes, hole_bytes});
            if (!done) return done;
            done_bytes += hole_bytes;
            continue;
        }
        const auto pages = std::span(buffer).first(std::min(kChunkBytes, left_bytes));
        const auto wanted =
            pages.first(std::min<std::uint64_t>(pages.size(), size_bytes - done_bytes));
        const auto found = file.read(file_offset + done_bytes, wanted);
        if (!found) return std::unexpected(found.error());
        if (*found != wanted.size())
            return fail(ErrorCode::io,
                        fmt::format("{}: became shorter while it was imported", file.path()));
        std::fill(pages.begin() + static_cast<std::ptrdiff_t>(*found), pages.end(), std::byte{0});
        if (auto done = writer.put(part, range.start + done_bytes, pages); !done) return done;
        done_bytes += pages.size();
    }
    return {};
}

}  // namespace holdfast::image
