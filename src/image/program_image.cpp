// The import of a program: its segments, laid out as the kernel's loader does (fs/binfmt_elf.c).
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <vector>

#include "image/elf_file.hpp"
#include "image/image_writer.hpp"

namespace holdfast {
namespace {

using image::ElfFile;
using image::ImageWriter;
using image::Part;

std::uint64_t page_floor(std::uint64_t bits) { return bits & ~(kPageSize - 1); }
std::uint64_t page_ceil(std::uint64_t bits) { return page_floor(bits + kPageSize - 1); }

// Pages of the file, or of zeros, at an address.
struct Piece {
    std::uint64_t end = 0;
    Protection protection;
    std::optional<std::uint64_t> file_offset;  // nothing: zeros
    // Of the bytes from the file, those from here on are zeroed: where .bss begins in a page whose
    // rest the file fills with something else.
    std::uint64_t zeros_from = ~std::uint64_t{0};
};

// What is where after all segments were mapped, each over those before it, as by MAP_FIXED. Two
// segments that share a page usually show the same page of the file there, which then has the bytes
// of both; its protection is the later one's.
class Layout {
  public:
    void place(std::uint64_t start, const Piece& piece) {
        if (start >= piece.end) return;
        clear(start, piece.end);
        pieces_[start] = piece;
    }
    bool covers(std::uint64_t page) const {
        auto after = pieces_.upper_bound(page);
        return after != pieces_.begin() && std::prev(after)->second.end > page;
    }
    const std::map<std::uint64_t, Piece>& pieces() const { return pieces_; }

  private:
    void clear(std::uint64_t start, std::uint64_t end) {
        split(start);
        split(end);
        pieces_.erase(pieces_.lower_bound(start), pieces_.lower_bound(end));
    }
    void split(std::uint64_t at) {
        const auto after = pieces_.upper_bound(at);
        if (after == pieces_.begin()) return;
        const auto found = std::prev(after);
        if (found->first == at || found->second.end <= at) return;
        Piece right = found->second;
        if (right.file_offset) *right.file_offset += at - found->first;
        found->second.end = at;
        pieces_[at] = right;
    }

    std::map<std::uint64_t, Piece> pieces_;
};

// Where the kernel puts a position-independent program without randomisation: two thirds into the
// user half. With five levels it stays within the 47 bits that programs are used to.
std::uint64_t load_address(Levels levels) {
    const std::uint64_t user_bytes = std::uint64_t{1}
                                     << (virtual_address_bits(std::min(levels, Levels::four)) - 1);
    return page_floor((user_bytes - kPageSize) / 3 * 2);
}

Result<Layout> lay_out(const ElfFile& program, const std::vector<GElf_Phdr>& segments,
                       std::uint64_t bias) {
    Layout layout;
    for (const GElf_Phdr& segment : segments) {
        if (segment.p_filesz != 0 && segment.p_vaddr % kPageSize != segment.p_offset % kPageSize)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("{}: the segment at {:#x} lies at {:#x} in the file, which no "
                                    "page of it can be mapped from; link the program for 4 KiB "
                                    "pages",
                                    program.file().path(), segment.p_vaddr, segment.p_offset));
        const Protection protection = image::segment_protection(segment);
        const std::uint64_t start = segment.p_vaddr + bias, data_end = start + segment.p_filesz,
                            end = start + segment.p_memsz;
        std::uint64_t zeros = page_floor(start);
        if (segment.p_filesz != 0) {
            zeros = page_ceil(data_end);
            Piece piece{zeros, protection, page_floor(segment.p_offset)};
            // The kernel cannot clear the rest of a page that the program may not write.
            if (end > data_end && protection.writable()) piece.zeros_from = data_end;
            layout.place(page_floor(start), piece);
        } else if (layout.covers(zeros)) {
            zeros += kPageSize;
        }
        layout.place(zeros, {page_ceil(end), protection, std::nullopt});
    }
    return layout;
}

Result<void> put_pieces(ImageWriter& writer, const ElfFile& program, const Layout& layout) {
    const auto file_size = program.file().size_bytes();
    if (!file_size) return std::unexpected(file_size.error());
    std::error_code ignored;
    const std::string name = std::filesystem::canonical(program.file().path(), ignored).string();
    for (const auto& [start, piece] : layout.pieces()) {
        const Range range{VirtAddr(start), piece.end - start};
        if (!piece.protection.readable()) {
            writer.skip(range);
            continue;
        }
        Part part{range, piece.protection, "", 0};
        Result<void> done;
        if (piece.file_offset) {
            part.name = name;
            part.name_offset = *piece.file_offset;
            const std::uint64_t there_bytes =
                std::min({range.size_bytes, *file_size - std::min(*file_size, *piece.file_offset),
                          std::max(piece.zeros_from, start) - start});
            done = image::put_from_file(writer, program.file(), *piece.file_offset, there_bytes,
                                        part, range);
        } else {
            done = writer.put_zeros(part, range);
        }
        if (!done) return done;
    }
    return {};
}

Result<ImportReport> import_segments(Store& store, const std::string& space_name,
                                     const std::string& path, const ImportOptions& options) {
    auto program = ElfFile::open(path);
    if (!program) return std::unexpected(std::move(program.error()));
    const auto type = program->header().e_type;
    if (type != ET_EXEC && type != ET_DYN)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: {}", path,
                                type == ET_CORE ? "a core dump and not a program; import it as a "
                                                  "core dump (import_core, `--core`)"
                                                : "an ELF file, but not a program; link it first"));
    const auto segments = program->loadable_segments();
    if (!segments) return std::unexpected(segments.error());
    std::uint64_t lowest = ~std::uint64_t{0};
    for (const GElf_Phdr& segment : *segments)
        lowest = std::min(lowest, page_floor(segment.p_vaddr));
    const std::uint64_t bias = type == ET_DYN ? load_address(options.levels) - lowest : 0;
    const auto layout = lay_out(*program, *segments, bias);
    if (!layout) return std::unexpected(layout.error());

    auto writer = ImageWriter::begin(store, space_name, options);
    if (!writer) return std::unexpected(std::move(writer.error()));
    std::uint64_t total_bytes = 0;
    for (const auto& [start, piece] : layout->pieces()) total_bytes += piece.end - start;
    writer->expect(total_bytes);
    writer->set_entry_point(VirtAddr(program->header().e_entry + bias));
    if (auto done = put_pieces(*writer, *program, *layout); !done)
        return std::unexpected(std::move(done.error()));
    if (auto done = writer->finish(); !done) return std::unexpected(std::move(done.error()));
    return writer->commit();
}

}  // namespace

Result<ImportReport> import_elf(Store& store, const std::string& space_name,
                                const std::string& path, const ImportOptions& options) {
    return image::timed([&] { return import_segments(store, space_name, path, options); });
}

}  // namespace holdfast
