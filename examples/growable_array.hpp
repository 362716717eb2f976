// A persistent array that grows and never moves an element: a large range of addresses is reserved
// once, demand-zero, and pages get their frames as elements come. So appending never copies what is
// there, and an element's address, once given, is good for ever, in this process's space and in the
// next one's.
//
//     auto numbers = GrowableArray<Number>::open(space, VirtAddr(0x7000'0000'0000), 64_GiB);
//     numbers->push_back({1, 2});                          // durable on return
//
// Durability: an element is there or not. It is written and persisted first; then the number of
// elements, one word, which is what a crash leaves old or new.
//
// Not thread-safe, but for reading elements that were there before.
#pragma once

#include <cstdint>
#include <holdfast/holdfast.hpp>
#include <type_traits>
#include <utility>

template <typename T>
    requires std::is_trivially_copyable_v<T>
class GrowableArray {
  public:
    // The array that begins at `start`, or a new one, for elements of at most `capacity_bytes`.
    static holdfast::Result<GrowableArray> open(holdfast::Space space, holdfast::VirtAddr start,
                                                std::uint64_t capacity_bytes) {
        using namespace holdfast;
        const Range range{start,
                          kPageSize + (capacity_bytes + kPageSize - 1) / kPageSize * kPageSize};
        GrowableArray array(std::move(space), range);
        auto there = find_mapping(array.space_, start);
        if (!there) return std::unexpected(there.error());
        if (!*there) {
            auto mapped =
                array.space_.map(range, protection::rw, {.lazy = true, .name = "[array]"});
            if (!mapped) return std::unexpected(mapped.error());
        }
        Header header{};
        if (auto read = array.space_.read(start, bytes_of(header)); !read)
            return std::unexpected(read.error());
        if (header.element_bytes == 0) {
            // A header that was never written is zeros: so is that of an array without elements.
            header.element_bytes = sizeof(T);
            if (auto done = array.store(start, header); !done) return std::unexpected(done.error());
        }
        if (header.element_bytes != sizeof(T))
            return fail(ErrorCode::invalid_argument, "the array has elements of another size");
        array.count_ = header.count;
        return array;
    }

    std::uint64_t size() const { return count_; }
    // Where an element is, or will be: always the same.
    holdfast::VirtAddr address(std::uint64_t index) const {
        return range_.start + holdfast::kPageSize + index * sizeof(T);
    }
    holdfast::Result<T> at(std::uint64_t index) const {
        T element{};
        if (auto read = space_.read(address(index), bytes_of(element)); !read)
            return std::unexpected(read.error());
        return element;
    }
    // Errors: no_space (the range is full, or the store), and as Space::write; nothing is appended.
    holdfast::Result<void> push_back(const T& element) {
        const holdfast::VirtAddr place = address(count_);
        if (place + sizeof(T) > range_.end())
            return holdfast::fail(holdfast::ErrorCode::no_space, "the array's range is full");
        if (auto done = store(place, element); !done) return done;
        // A crash here leaves bytes behind the last element, which the next one is written over.
        if (auto done = store(range_.start, count_ + 1); !done) return done;
        ++count_;
        return {};
    }

  private:
    struct Header {
        std::uint64_t count;  // first, and stored alone
        std::uint64_t element_bytes;
    };

    GrowableArray(holdfast::Space space, holdfast::Range range)
        : space_(std::move(space)), range_(range) {}

    template <typename Value>
    static std::span<std::byte> bytes_of(Value& value) {
        return std::as_writable_bytes(std::span(&value, 1));
    }
    template <typename Value>
    holdfast::Result<void> store(holdfast::VirtAddr place, const Value& value) {
        if (auto written = space_.write(place, std::as_bytes(std::span(&value, 1))); !written)
            return written;
        return space_.persist({place, sizeof value});
    }

    holdfast::Space space_;
    holdfast::Range range_;
    std::uint64_t count_ = 0;
};
