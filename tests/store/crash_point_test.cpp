// Each call of the API is crashed before each flush and each fence it makes, in the two extreme
// ways (support/durable_shadow.hpp); every image is reopened and must be as before the call or as
// after it, verify clean, and go on working. When the call has returned, what survives must be the
// state after it: durable on return. ctest-labels: noasan ctest-timeout: 900
#include <fmt/format.h>
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <functional>
#include <ostream>

#include "support/durable_shadow.hpp"
#include "support/model.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;

constexpr std::uint64_t kPoolBytes = 16_MiB;
constexpr VirtAddr kBase{0x4000'0000};

Range pages(std::uint64_t first, std::uint64_t count) {
    return {kBase + first * kPageSize, count * kPageSize};
}

// The same steps on the store and on the model.
class Both {
  public:
    explicit Both(Store store_in) : store(std::move(store_in)) {}
    Space space(const std::string& name = "a") { return value_of(store.open_space(name)); }
    void create(const std::string& name, Levels levels = Levels::four) {
        value_of(store.create_space(name, {levels}));
        model.create(name, levels);
    }
    void map(Range range, Protection protection = protection::rw, bool lazy = false,
             const std::string& name = "") {
        must(space().map(range, protection, {.lazy = lazy, .name = name}));
        model.map("a", range, protection, lazy);
    }
    void unmap(Range range) {
        must(space().unmap(range));
        model.unmap("a", range);
    }
    void protect(Range range, Protection protection) {
        must(space().protect(range, protection));
        model.protect("a", range, protection);
    }
    void write(VirtAddr page, std::uint64_t word) {
        must(space().write(page, std::as_bytes(std::span(&word, 1))));
        must(space().persist({page, sizeof word}));
        model.write("a", page, word);
    }
    Store store;
    Model model;
};

bool matches(const Store& store, const Model& model) {
    testing::TestPartResultArray failures;
    const testing::ScopedFakeTestPartResultReporter reporter(
        testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
    return agrees(store, model) && failures.size() == 0;
}

struct Case {
    const char* name;
    std::function<void(Both&)> prepare;
    std::function<void(Both&)> call;
};

void PrintTo(const Case& each, std::ostream* out) { *out << each.name; }

std::byte* pool_address(const Store& store) {
    // The first region's frames, less their place in the file: where the file is mapped.
    const RegionInfo region = store.regions().front();
    return const_cast<std::byte*>(region.address) - region.file_offset;
}

// All images of a short call; of a long one the first, the last (around the commit), and some of
// the many in which one more page was built aside.
std::vector<CrashImage> chosen(const std::vector<CrashImage>& images) {
    constexpr std::size_t kFirst = 12, kLast = 30, kBetween = 18;
    if (images.size() <= kFirst + kBetween + kLast) return images;
    std::vector<CrashImage> some(images.begin(), images.begin() + kFirst);
    const std::size_t middle = images.size() - kFirst - kLast;
    for (std::size_t i = 0; i < kBetween; ++i)
        some.push_back(images[kFirst + i * middle / kBetween]);
    some.insert(some.end(), images.end() - kLast, images.end());
    return some;
}

class CrashPoint : public testing::TestWithParam<Case> {};

TEST_P(CrashPoint, LeavesTheStateBeforeOrAfter) {
    const TemporaryPool pool;
    Model before, after;
    std::vector<CrashImage> images;
    const TemporaryPool crashed;
    std::optional<DurableShadow> shadow;
    {
        Both both(pool.create(kPoolBytes));
        both.create("a");
        GetParam().prepare(both);
        before = both.model;
        shadow.emplace(pool_address(both.store), kPoolBytes);
        GetParam().call(both);
        shadow->crash_here("the call's return");
        shadow->stop();
        images = chosen(shadow->images());
        after = both.model;
    }
    std::uint64_t states_before = 0, states_after = 0;
    for (std::size_t i = 0; i < images.size(); ++i) {
        SCOPED_TRACE(fmt::format(
            "{}, {}", images[i].point,
            images[i].everything_evicted ? "everything evicted" : "every dirty line lost"));
        shadow->write(images[i], crashed.path());
        auto opened = Store::open(crashed.path(), {.emulation = PmemEmulation::on});
        ASSERT_TRUE(opened) << opened.error().message;
        const bool returned = images[i].point.ends_with("return");
        Model state = after;
        if (matches(*opened, after)) {
            ++states_after;
        } else {
            // Fails with every difference.
            ASSERT_TRUE(agrees(*opened, before)) << (returned ? "after its return" : "");
            ASSERT_FALSE(returned) << "the call had returned, and was not durable";
            state = before;
            ++states_before;
        }
        // And it goes on: the first changes after recovery, and the release of what was left.
        Both next(*opened);
        next.model = state;
        if (!state.spaces.contains("a")) next.create("a");
        next.map({VirtAddr(0x7000'0000'0000), 40 * kPageSize});
        next.write(VirtAddr(0x7000'0000'0000), 0xabc);
        ASSERT_TRUE(agrees(next.store, next.model));
        value_of(next.store.release_limbo());
        ASSERT_TRUE(agrees(next.store, next.model));
        const VerifyReport report = next.store.verify();
        ASSERT_EQ(report.frames_building, 0u);
        ASSERT_EQ(report.frames_limbo, 0u);
    }
    fmt::print("{}: {} of {} images, {} as before, {} as after\n", GetParam().name, images.size(),
               shadow->images().size(), states_before, states_after);
    EXPECT_GT(states_before, 0u);
    EXPECT_GT(states_after, 0u);
}

const Case kCases[] = {
    {"first_change_after_open", [](Both&) {}, [](Both& b) { b.map(pages(0, 1)); }},
    {"create_space", [](Both&) {}, [](Both& b) { b.create("b", Levels::five); }},
    {"rename_space", [](Both& b) { b.map(pages(0, 3)); },
     [](Both& b) {
         must(b.store.rename_space("a", "b"));
         b.model.rename("a", "b");
     }},
    {"remove_space", [](Both& b) { b.map(pages(0, 600), protection::rw, false, "named"); },
     [](Both& b) {
         must(b.store.remove_space("a"));
         b.model.remove("a");
     }},
    {"map_one_page", [](Both& b) { b.map(pages(0, 1)); }, [](Both& b) { b.map(pages(5, 1)); }},
    {"map_one_page_named", [](Both& b) { b.map(pages(0, 1)); },
     [](Both& b) { b.map(pages(5, 1), protection::rx, false, "name"); }},
    {"map_range", [](Both& b) { b.map(pages(0, 3)); }, [](Both& b) { b.map(pages(100, 900)); }},
    {"map_lazy", [](Both&) {}, [](Both& b) { b.map(pages(100, 900), protection::rw, true); }},
    {"first_write_to_lazy_page", [](Both& b) { b.map(pages(0, 512 * 3), protection::rw, true); },
     // A word of zeros: the page gets its frame, which is what is atomic here; bytes are not.
     [](Both& b) { b.write(kBase + 700 * kPageSize, 0); }},
    {"map_shared", [](Both& b) { b.map(pages(0, 3)); },
     [](Both& b) {
         must(b.space().map_shared(pages(512, 600), protection::r, b.space(), pages(0, 3)));
         b.model.map_shared("a", pages(512, 600), protection::r, "a", pages(0, 3));
     }},
    {"unmap_one_page", [](Both& b) { b.map(pages(0, 3)); }, [](Both& b) { b.unmap(pages(1, 1)); }},
    {"unmap_last_page", [](Both& b) { b.map(pages(0, 1)); }, [](Both& b) { b.unmap(pages(0, 1)); }},
    {"unmap_range", [](Both& b) { b.map(pages(0, 1600)); },
     [](Both& b) { b.unmap(pages(30, 1500)); }},
    {"unmap_part_of_lazy", [](Both& b) { b.map(pages(0, 1600), protection::rw, true); },
     [](Both& b) { b.unmap(pages(30, 700)); }},
    {"unmap_shared",
     [](Both& b) {
         b.map(pages(0, 2));
         must(b.space().map_shared(pages(512, 100), protection::r, b.space(), pages(0, 2)));
         b.model.map_shared("a", pages(512, 100), protection::r, "a", pages(0, 2));
     },
     [](Both& b) { b.unmap(pages(520, 60)); }},
    {"protect_one_page", [](Both& b) { b.map(pages(0, 3)); },
     [](Both& b) { b.protect(pages(1, 1), protection::r); }},
    {"protect_range", [](Both& b) { b.map(pages(0, 1600)); },
     [](Both& b) { b.protect(pages(30, 1500), protection::rx); }},
    {"transaction_over_two_spaces",
     [](Both& b) {
         b.create("b");
         b.map(pages(0, 20));
     },
     [](Both& b) {
         Transaction t = b.store.begin();
         const Space x = b.space("a"), y = b.space("b");
         must(t.unmap(x, pages(0, 10)));
         must(t.map(y, pages(0, 10), protection::rw));
         must(t.protect(x, pages(10, 5), protection::r));
         must(t.commit());
         b.model.unmap("a", pages(0, 10));
         b.model.map("b", pages(0, 10), protection::rw, false);
         b.model.protect("a", pages(10, 5), protection::r);
     }},
    {"import_like_transaction", [](Both&) {},
     [](Both& b) {
         Transaction t = b.store.begin();
         const Space space = value_of(t.create_space("b"));
         const std::uint64_t word = 0x1234;
         must(t.map(space, pages(0, 300), protection::rx, {.name = "program"}));
         must(t.fill(space, kBase + 17 * kPageSize, std::as_bytes(std::span(&word, 1))));
         must(t.map(space, pages(300, 300), protection::rw, {.lazy = true, .name = "program"}));
         must(t.commit());
         b.model.create("b", Levels::four);
         b.model.map("b", pages(0, 300), protection::rwx, false);
         b.model.write("b", kBase + 17 * kPageSize, word);
         b.model.protect("b", pages(0, 300), protection::rx);
         b.model.map("b", pages(300, 300), protection::rw, true);
     }},
};

INSTANTIATE_TEST_SUITE_P(Of, CrashPoint, testing::ValuesIn(kCases),
                         [](const auto& param) { return std::string(param.param.name); });

// What a call does not change, a crash in it must not change either: releasing limbo, aborting.
TEST(CrashPointOfRelease, ChangesNothingThatIsMapped) {
    const TemporaryPool pool, crashed;
    std::optional<DurableShadow> shadow;
    Model model;
    {
        Both both(pool.create(kPoolBytes));
        both.create("a");
        both.create("b");
        both.map(pages(0, 1200), protection::rw, false, "x");
        must(both.space().map_shared(pages(4096, 300), protection::r, both.space(), pages(1, 2)));
        both.model.map_shared("a", pages(4096, 300), protection::r, "a", pages(1, 2));
        both.unmap(pages(100, 1050));
        both.unmap(pages(4100, 200));
        both.protect(pages(0, 64), protection::r);
        must(both.store.remove_space("b"));
        both.model.remove("b");
        model = both.model;
        shadow.emplace(pool_address(both.store), kPoolBytes);
        value_of(both.store.release_limbo());
        Transaction aborted = both.store.begin();
        must(aborted.map(both.space(), pages(9000, 400), protection::rw));
        aborted.abort();
        shadow->crash_here("return");
        shadow->stop();
    }
    const std::vector<CrashImage> images = chosen(shadow->images());
    fmt::print("{} of {} images\n", images.size(), shadow->images().size());
    ASSERT_GT(images.size(), 20u);
    for (const CrashImage& image : images) {
        SCOPED_TRACE(fmt::format("{}, {}", image.point, image.everything_evicted));
        shadow->write(image, crashed.path());
        Both next(crashed.open());
        next.model = model;
        ASSERT_TRUE(agrees(next.store, next.model));
        next.map({VirtAddr(0x7000'0000'0000), 1100 * kPageSize});
        ASSERT_TRUE(agrees(next.store, next.model));
        value_of(next.store.release_limbo());
        ASSERT_TRUE(agrees(next.store, next.model));
        const VerifyReport report = next.store.verify();
        ASSERT_EQ(report.frames_building + report.frames_limbo, 0u);
    }
}

}  // namespace
}  // namespace holdfast::test
