#include "image/image_writer.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace holdfast::image {
namespace {

constexpr std::uint64_t kProgressBytes = std::uint64_t{16} << 20;

bool is_zero(std::span<const std::byte> page) {
    // A page is all zeros if its first byte is, and every byte equals the one before it; memcmp
    // stops at the first difference and is the fastest loop there is.
    return page.front() == std::byte{0} &&
           std::memcmp(page.data(), page.data() + 1, page.size() - 1) == 0;
}

Part cut(const Part& part, Range range) {
    return {range, part.protection, part.name, part.name_offset + (range.start - part.range.start)};
}

bool continues(const Part& left, const Part& right) {
    return left.range.end() == right.range.start && left.protection == right.protection &&
           left.name == right.name &&
           (left.name.empty() || left.name_offset + left.range.size_bytes == right.name_offset);
}

}  // namespace

ImageWriter::ImageWriter(Transaction transaction, Space space, const ImportOptions& options)
    : transaction_(std::move(transaction)), space_(std::move(space)), progress_(options.progress) {}

Result<ImageWriter> ImageWriter::begin(Store& store, const std::string& space_name,
                                       const ImportOptions& options) {
    Transaction transaction = store.begin();
    auto space = transaction.create_space(space_name, {.levels = options.levels});
    if (!space) return std::unexpected(std::move(space.error()));
    return ImageWriter(std::move(transaction), std::move(*space), options);
}

void ImageWriter::advance(std::uint64_t size_bytes) {
    done_bytes_ += size_bytes;
    if (!progress_ || done_bytes_ - reported_bytes_ < kProgressBytes) return;
    reported_bytes_ = done_bytes_;
    progress_(done_bytes_, total_bytes_);
}

Result<void> ImageWriter::map(const Part& part, Range range, bool lazy) {
    const Part mapped = cut(part, range);
    report_.mapped_bytes += range.size_bytes;
    return transaction_.map(space_, range, part.protection,
                            {.lazy = lazy, .name = mapped.name, .name_offset = mapped.name_offset});
}

Result<void> ImageWriter::map_pending_zeros() {
    if (!zeros_) return {};
    const Part zeros = *std::exchange(zeros_, std::nullopt);
    return map(zeros, zeros.range, true);
}

Result<void> ImageWriter::put_frames(const Part& part, VirtAddr address,
                                     std::span<const std::byte> pages) {
    if (auto done = map_pending_zeros(); !done) return done;
    if (auto done = map(part, {address, pages.size()}, false); !done) return done;
    report_.stored_bytes += pages.size();
    return transaction_.fill(space_, address, pages);
}

Result<void> ImageWriter::put(const Part& part, VirtAddr address,
                              std::span<const std::byte> pages) {
    for (std::size_t begin = 0; begin < pages.size();) {
        const bool zero = is_zero(pages.subspan(begin, kPageSize));
        std::size_t end = begin + kPageSize;
        while (end < pages.size() && is_zero(pages.subspan(end, kPageSize)) == zero)
            end += kPageSize;
        if (zero) {
            if (auto done = put_zeros(part, {address + begin, end - begin}); !done) return done;
        } else {
            auto done = put_frames(part, address + begin, pages.subspan(begin, end - begin));
            if (!done) return done;
            advance(end - begin);
        }
        begin = end;
    }
    return {};
}

Result<void> ImageWriter::put_zeros(const Part& part, Range range) {
    if (range.size_bytes == 0) return {};
    Part zeros = cut(part, range);
    if (zeros_ && continues(*zeros_, zeros)) {
        zeros_->range.size_bytes += range.size_bytes;
    } else {
        if (auto done = map_pending_zeros(); !done) return done;
        zeros_ = std::move(zeros);
    }
    advance(range.size_bytes);
    return {};
}

void ImageWriter::skip(Range range) {
    report_.skipped_bytes += range.size_bytes;
    advance(range.size_bytes);
}

Result<void> ImageWriter::finish() {
    if (progress_ && reported_bytes_ != done_bytes_) progress_(done_bytes_, total_bytes_);
    return map_pending_zeros();
}

Result<ImportReport> ImageWriter::commit() {
    if (auto done = transaction_.commit(); !done) return std::unexpected(std::move(done.error()));
    return report_;
}

}  // namespace holdfast::image
