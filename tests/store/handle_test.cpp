// Handles are kept across restarts; a stale one is refused, never led to what is there instead.
#include "holdfast/handle.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;

constexpr Range kRange{VirtAddr(0x1000'0000), 8 * kPageSize};
constexpr Range part(std::uint64_t first, std::uint64_t count) {
    return {kRange.start + first * kPageSize, count * kPageSize};
}

class Handles : public testing::Test {
  protected:
    Handles() : store_(pool_.create()) {
        Space space = value_of(store_->create_space("space"));
        must(space.map(kRange, protection::rw));
    }
    void reopen() {
        store_.reset();
        store_ = pool_.open();
    }
    Space space(const std::string& name = "space") { return value_of(store_->open_space(name)); }
    // As an application keeps it.
    std::string kept(Range range = {}) {
        return value_of(range.size_bytes == 0 ? space().handle() : space().handle(range))
            .to_string();
    }
    Result<Store::Resolved> resolve(const std::string& text) {
        return store_->resolve(value_of(Handle::parse(text)));
    }
    void expect_good(const std::string& text, Range range, const std::string& name = "space") {
        for (int round = 0; round < 2; ++round, reopen()) {
            const auto found = resolve(text);
            ASSERT_TRUE(found) << found.error().message;
            EXPECT_EQ(found->space.name(), name);
            EXPECT_EQ(found->range, range);
        }
    }
    void expect_stale(const std::string& text, const std::string& reason) {
        for (int round = 0; round < 2; ++round, reopen()) {
            const auto found = resolve(text);
            ASSERT_FALSE(found);
            EXPECT_EQ(found.error().code, ErrorCode::stale);
            EXPECT_THAT(found.error().message, HasSubstr(reason));
        }
    }

    const TemporaryPool pool_;
    std::optional<Store> store_;
};

TEST_F(Handles, OfASpace) {
    const std::string handle = kept();
    expect_good(handle, {});
    must(store_->rename_space("space", "renamed"));
    expect_good(handle, {}, "renamed");
    value_of(store_->create_space("space"));
    expect_good(handle, {}, "renamed");
    must(store_->remove_space("renamed"));
    expect_stale(handle, "was removed");
    value_of(store_->release_limbo());
    expect_stale(handle, "was removed");
    // Others of its name, and in its frame, are not it.
    for (int i = 0; i < 30; ++i) value_of(store_->create_space("renamed" + std::to_string(i)));
    value_of(store_->create_space("renamed"));
    expect_stale(handle, "was removed");
}

TEST_F(Handles, OfASpaceThatWasRemovedAndMadeAgainInOneBreath) {
    const std::string handle = kept();
    {
        Transaction transaction = store_->begin();
        must(transaction.remove_space("space"));
        value_of(transaction.create_space("space"));
        must(transaction.commit());
    }
    expect_stale(handle, "was removed");
}

TEST_F(Handles, OfARange) {
    const std::string whole = kept(kRange), inside = kept(part(2, 3));
    expect_good(whole, kRange);
    expect_good(inside, part(2, 3));
    must(space().protect(part(1, 4), protection::r));
    must(space().unmap({kRange.end(), 8 * kPageSize}));
    must(space().map({kRange.end(), 8 * kPageSize}, protection::rw));
    must(store_->rename_space("space", "renamed"));
    expect_good(whole, kRange, "renamed");
    expect_good(inside, part(2, 3), "renamed");
    must(store_->rename_space("renamed", "space"));

    must(space().unmap(part(6, 1)));
    expect_stale(whole, "was unmapped");
    expect_good(inside, part(2, 3));
    must(space().map(part(6, 1), protection::rw));
    expect_stale(whole, "was unmapped");
    EXPECT_EQ(value_of(space().maps()).size(), 3u) << "a mark is no name, and divides nothing";
    must(space().unmap(kRange));
    must(space().map(kRange, protection::rw));
    expect_stale(inside, "was unmapped");
    const std::string again = kept(kRange);
    EXPECT_NE(again, whole);
    expect_good(again, kRange);
    expect_stale(whole, "was unmapped");
}

TEST_F(Handles, OfANamedRange) {
    const Range named{VirtAddr(0x2000'0000), 4 * kPageSize};
    must(space().map(named, protection::rw, {.lazy = true, .name = "file"}));
    const std::string handle = kept(named);
    // A page that gets its frame is still the same page.
    must(space().write(named.start, std::as_bytes(std::span("x", 1))));
    expect_good(handle, named);
    EXPECT_EQ(value_of(space().maps()).back().name, "file");
    // What continues the name is not part of it; not even where it was.
    must(space().unmap({named.start + 3 * kPageSize, kPageSize}));
    must(space().map({named.start + 3 * kPageSize, kPageSize}, protection::rw,
                     {.name = "file", .name_offset = 3 * kPageSize}));
    expect_stale(handle, "was unmapped");
    EXPECT_EQ(space().handle({named.start, 4 * kPageSize}).error().code,
              ErrorCode::invalid_argument);
    expect_clean(*store_);
}

TEST_F(Handles, OfWhatIsNotMapped) {
    EXPECT_EQ(space().handle({kRange.start, kRange.size_bytes + kPageSize}).error().code,
              ErrorCode::not_mapped);
    EXPECT_EQ(space().handle({kRange.start + 1, kPageSize}).error().code,
              ErrorCode::invalid_argument);
    Space removed = space();
    must(store_->remove_space("space"));
    EXPECT_EQ(removed.handle().error().code, ErrorCode::stale);
    EXPECT_EQ(removed.handle(kRange).error().code, ErrorCode::stale);
}

TEST_F(Handles, OfAnotherStore) {
    const std::string handle = kept();
    const TemporaryPool other;
    Store second = other.create();
    value_of(second.create_space("space"));
    const auto found = second.resolve(value_of(Handle::parse(handle)));
    ASSERT_FALSE(found);
    EXPECT_THAT(found.error().message, HasSubstr("another store"));
}

TEST_F(Handles, AfterTheRegionMoved) {
    const std::string whole = kept(), range = kept(kRange);
    must(store_->move_region(0));
    reopen();
    expect_good(whole, {});
    expect_good(range, kRange);
    must(store_->finish_moves());
    expect_good(range, kRange);
}

TEST_F(Handles, ChangedInAnyDigit) {
    const std::string handle = kept(kRange);
    EXPECT_EQ(value_of(Handle::parse(handle)).to_string(), handle);
    for (std::size_t at = 0; at < handle.size(); ++at)
        for (const char digit : {'0', '1', '7', 'a', 'f', ' ', 'A', '-'}) {
            std::string changed = handle;
            changed[at] = digit;
            if (changed == handle) continue;
            EXPECT_EQ(Handle::parse(changed).error().code, ErrorCode::invalid_argument);
        }
    EXPECT_FALSE(Handle::parse(""));
    EXPECT_FALSE(Handle::parse(handle + "0"));
    EXPECT_FALSE(Handle::parse(handle.substr(0, handle.size() - 1)));
}

}  // namespace
}  // namespace holdfast::test
