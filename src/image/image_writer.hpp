// One import under way: the transaction, the new space in it, and the report.
//
// Whoever imports goes through its source in ascending order and hands over pages as it finds them;
// the writer gives a frame to every page that holds anything but zeros and reserves the others, so
// that a mapping becomes one line of `Space::maps` however its pages are mixed. Nothing of it is in
// the store before `commit`, and nothing ever is if the writer goes away without it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "holdfast/image.hpp"
#include "holdfast/store.hpp"

namespace holdfast::image {

// A stretch of the source with one protection and one name.
struct Part {
    Range range;
    Protection protection;
    std::string name;
    std::uint64_t name_offset = 0;  // of the range's first byte
};

class ImageWriter {
  public:
    // already_exists or invalid_argument if there can be no space of this name.
    static Result<ImageWriter> begin(Store& store, const std::string& space_name,
                                     const ImportOptions& options);

    // How many bytes the import will go through; only the progress needs to know.
    void expect(std::uint64_t total_bytes) { total_bytes_ = total_bytes; }

    // These concern whole pages in `part`, which nobody has handed over before. Zeros among
    // `pages` are found; `put_zeros` is for those that need not even be looked at.
    Result<void> put(const Part& part, VirtAddr address, std::span<const std::byte> pages);
    Result<void> put_zeros(const Part& part, Range range);
    // The range stays unmapped, since its bytes cannot be had.
    void skip(Range range);

    void set_entry_point(VirtAddr address) { report_.entry_point = address.bits(); }

    // The last zeros, and the last call of the progress; the source may go after it.
    Result<void> finish();
    // The commit point of the import.
    Result<ImportReport> commit();

  private:
    ImageWriter(Transaction transaction, Space space, const ImportOptions& options);
    Result<void> put_frames(const Part& part, VirtAddr address, std::span<const std::byte> pages);
    Result<void> map(const Part& part, Range range, bool lazy);
    Result<void> map_pending_zeros();
    void advance(std::uint64_t size_bytes);

    Transaction transaction_;
    Space space_;
    std::function<void(std::uint64_t, std::uint64_t)> progress_;
    ImportReport report_;
    // Zeros wait for what follows them: one range of many pages costs one entry where many ranges
    // of one page would cost an entry each.
    std::optional<Part> zeros_;
    std::uint64_t done_bytes_ = 0, total_bytes_ = 0, reported_bytes_ = 0;
};

// The report of an import, with the time that all of it took.
template <typename Import>
Result<ImportReport> timed(const Import& import) {
    const auto start = std::chrono::steady_clock::now();
    Result<ImportReport> report = import();
    if (report)
        report->seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return report;
}

}  // namespace holdfast::image
