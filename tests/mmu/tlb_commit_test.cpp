// The TLB in the middle of commits: at every flush, copy and fence of a change, what it answers is
// what the tables say there and then. So it never lags behind what a reader can already see.
#include <gtest/gtest.h>

#include <functional>

#include "holdfast/holdfast.hpp"
#include "support/temporary_pool.hpp"
#include "tracer/boundary.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;

// Calls `look` before each event at the boundary with libpmem, while it lives.
class AtEachEvent final : public crash::BoundaryObserver {
  public:
    explicit AtEachEvent(std::function<void()> look) : look_(std::move(look)) {
        crash::observe_boundary(this);
    }
    ~AtEachEvent() override { crash::observe_boundary(nullptr); }
    AtEachEvent(const AtEachEvent&) = delete;
    AtEachEvent& operator=(const AtEachEvent&) = delete;

    bool flush(const void*, std::size_t, const void*) override { return event(); }
    bool drain(const void*) override { return event(); }
    bool sync(const void*, std::size_t, const void*) override { return event(); }
    bool copy(void*, const void*, int, std::size_t, unsigned, const void*) override {
        return event();
    }

  private:
    bool event() {
        if (!looking_) {
            looking_ = true;  // a look may flush, too
            look_();
            looking_ = false;
        }
        return false;  // libpmem does the work
    }
    std::function<void()> look_;
    bool looking_ = false;
};

class TlbInCommits : public testing::Test {
  protected:
    static constexpr std::uint64_t kPages = 12;
    static constexpr Range kRange{VirtAddr(0x4000'0000 - 4 * kPageSize), kPages* kPageSize};

    TlbInCommits() : store(pool.create(32_MiB)) {
        for (const char* name : {"one", "two"}) {
            spaces.push_back(value_of(store.create_space(name)));
            must(spaces.back().map(kRange, protection::rw));
        }
    }
    static Range pages(std::uint64_t first, std::uint64_t count) {
        return {kRange.start + first * kPageSize, count * kPageSize};
    }
    static void fill(Tlb& tlb) {
        for (std::uint64_t i = 0; i < kPages; ++i)
            std::ignore = tlb.translate(kRange.start + i * kPageSize);
    }
    // Makes the change between filled TLBs; returns how many looks saw it done before it returned.
    std::uint64_t watch(const std::function<Result<void>()>& change) {
        std::vector<Tlb> tlbs;
        for (const Space& space : spaces) {
            tlbs.emplace_back(space);
            fill(tlbs.back());
        }
        Tlb both(spaces[0]);
        fill(both);
        both.switch_to(spaces[1]);
        fill(both);
        const std::vector<std::optional<Translation>> before = answers();
        std::uint64_t looks = 0, saw_change = 0, wrong = 0;
        {
            const AtEachEvent watching([&] {
                ++looks;
                const auto now = answers();
                if (now != before) ++saw_change;
                std::size_t i = 0;
                for (std::size_t s = 0; s < spaces.size(); ++s) {
                    both.switch_to(spaces[s]);
                    for (std::uint64_t page = 0; page < kPages; ++page, ++i)
                        for (Tlb* const tlb : {&tlbs[s], &both}) {
                            const auto found = tlb->translate(kRange.start + page * kPageSize);
                            if ((found ? std::optional(*found) : std::nullopt) != now[i]) ++wrong;
                        }
                }
            });
            must(change());
        }
        EXPECT_GT(looks, 0u);
        EXPECT_EQ(wrong, 0u);
        return saw_change;
    }
    std::vector<std::optional<Translation>> answers() const {
        std::vector<std::optional<Translation>> all;
        for (const Space& space : spaces)
            for (std::uint64_t i = 0; i < kPages; ++i) {
                const auto found = space.translate(kRange.start + i * kPageSize);
                all.push_back(found ? std::optional(*found) : std::nullopt);
            }
        return all;
    }

    const TemporaryPool pool;
    Store store;
    std::vector<Space> spaces;
};

TEST_F(TlbInCommits, OnePage) {
    EXPECT_GT(watch([&] { return spaces[0].protect(pages(1, 1), protection::r); }), 0u);
    EXPECT_GT(watch([&] { return spaces[0].unmap(pages(2, 1)); }), 0u);
}

TEST_F(TlbInCommits, ARangeOverTheEdgeOfATable) {
    EXPECT_GT(watch([&] { return spaces[0].protect(pages(2, 5), protection::r); }), 0u);
    EXPECT_GT(watch([&] { return spaces[0].unmap(kRange); }), 0u);
}

TEST_F(TlbInCommits, SeveralRangesOfSeveralSpaces) {
    EXPECT_GT(watch([&] {
                  Transaction transaction = store.begin();
                  must(transaction.unmap(spaces[0], pages(0, 2)));
                  must(transaction.map(spaces[0], pages(0, 2), protection::r));
                  must(transaction.unmap(spaces[1], pages(3, 1)));
                  must(transaction.protect(spaces[0], pages(6, 2), protection::r));
                  must(transaction.map_shared(spaces[1], pages(3, 1), protection::r, spaces[0],
                                              pages(8, 1)));
                  return transaction.commit();
              }),
              0u);
}

TEST_F(TlbInCommits, WithNames) {
    must(spaces[0].unmap(kRange));
    must(spaces[0].map(kRange, protection::rw, {.name = "name"}));
    EXPECT_GT(watch([&] { return spaces[0].unmap(pages(3, 4)); }), 0u);
}

TEST_F(TlbInCommits, ARemovedSpace) {
    // Readers go on until the call is about to return; what is released then, they have left.
    watch([&] { return store.remove_space("one"); });
    EXPECT_FALSE(spaces[0].translate(kRange.start));
}

}  // namespace
}  // namespace holdfast::test
