// `Pool::commit`, in each of its ways, crashed before each flush and fence: all of its words are as
// before or all as after, and what the thread has flushed and not drained before the commit is
// there if they are as after. Crashed in the two extreme ways (support/durable_shadow.hpp), and in
// a third one: everything dirty was evicted but that content, which shows whether the commit drains
// it before it stores the first word.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <ostream>
#include <vector>

#include "pool/pool.hpp"
#include "support/durable_shadow.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

constexpr std::size_t kPoolBytes = std::size_t{8} << 20, kRootBytes = 8192;
constexpr std::size_t kContentAt = 4096;
constexpr const char* kTestLayout = "commit-test";

struct Case {
    std::size_t words;
    std::size_t unchanged;  // so many more that have their value already
    bool body;              // writes as many bytes in the same transaction
};
void PrintTo(const Case& each, std::ostream* out) {
    *out << each.words << " words, " << each.unchanged << " unchanged"
         << (each.body ? ", body" : "");
}

std::uint64_t* word(const pool::Pool& pool, std::size_t index) {
    return reinterpret_cast<std::uint64_t*>(pool.root()) + 3 * index;  // some share a line
}
std::uint64_t* content(const pool::Pool& pool) {
    return reinterpret_cast<std::uint64_t*>(pool.root() + kContentAt);
}
constexpr std::uint64_t old_value(std::size_t index) { return 2 * index; }
constexpr std::uint64_t new_value(std::size_t index) { return 2 * index + 1; }

// For each image in which everything was evicted, one more in which the page with the content is as
// it is on the medium. Needs a dirty line in that page, by which the extremes always differ.
std::vector<CrashImage> with_content_late(std::vector<CrashImage> images, std::uint64_t page) {
    std::vector<CrashImage> all;
    std::map<std::uint64_t, std::vector<std::byte>> durable;
    for (CrashImage& image : images) {
        all.push_back(image);
        if (!image.everything_evicted) {
            durable = std::move(image.pages);
            continue;
        }
        image.point += " (content not evicted)";
        image.pages.erase(page);
        if (const auto found = durable.find(page); found != durable.end())
            image.pages.insert(*found);
        all.push_back(std::move(image));
    }
    return all;
}

class Commit : public testing::TestWithParam<Case> {};

TEST_P(Commit, LeavesTheWordsBeforeOrAfter) {
    const auto [words, unchanged, has_body] = GetParam();
    const TemporaryPool file, crashed;
    const std::size_t body_word = words + unchanged;
    std::optional<DurableShadow> shadow;
    std::uint64_t content_page = 0;
    {
        const auto pool = value_of(
            pool::Pool::create(file.path(), kPoolBytes, 0600, true, kTestLayout, kRootBytes));
        for (std::size_t i = 0; i <= body_word; ++i) *word(*pool, i) = old_value(i);
        *content(*pool) = 0;
        content_page = pool->offset_of(content(*pool)) / kPageSize;
        ASSERT_LT(pool->offset_of(word(*pool, body_word)) / kPageSize, content_page);
        shadow.emplace(pool->at(0), kPoolBytes);

        content(*pool)[8] = 1;  // another line, never flushed
        *content(*pool) = 1;
        pool->flush(content(*pool), sizeof(std::uint64_t));
        pool::WriteSet writes;
        for (std::size_t i = 0; i < words + unchanged; ++i)
            writes.store(word(*pool, i), i < words ? new_value(i) : old_value(i),
                         i % 2 == 0 ? pool::WordClass::undo : pool::WordClass::publish);
        pool::Pool::Body body;
        if (has_body)
            body = [&](pool::TransactionScope& scope) -> Result<void> {
                const std::uint64_t value = new_value(body_word);
                scope.write(word(*pool, body_word), std::as_bytes(std::span(&value, 1)));
                return {};
            };
        must(pool->commit(writes, body));
        shadow->crash_here("return");
        shadow->stop();
    }
    std::size_t before = 0, after = 0;
    for (const CrashImage& image : with_content_late(shadow->images(), content_page)) {
        SCOPED_TRACE(fmt::format("{}, {}", image.point, image.everything_evicted));
        shadow->write(image, crashed.path());
        const auto pool = value_of(pool::Pool::open(crashed.path(), true, kTestLayout, kRootBytes));
        const bool is_after = *word(*pool, 0) == new_value(0);
        for (std::size_t i = 0; i <= body_word; ++i) {
            const bool changes = i < words || (i == body_word && has_body);
            ASSERT_EQ(*word(*pool, i), is_after && changes ? new_value(i) : old_value(i)) << i;
        }
        if (is_after) {
            ASSERT_EQ(*content(*pool), 1u);
        }
        ASSERT_TRUE(is_after || !image.point.contains("return"));
        ++(is_after ? after : before);
    }
    EXPECT_GT(before, 0u);
    EXPECT_GT(after, 0u);
}

// One word; the redo log alone; undo log and redo log; and a transaction with a body.
INSTANTIATE_TEST_SUITE_P(Of, Commit,
                         testing::Values(Case{1, 0, false}, Case{1, 3, false}, Case{2, 0, false},
                                         Case{3, 1, false}, Case{24, 0, false}, Case{25, 0, false},
                                         Case{20, 30, false}, Case{1, 1, true}, Case{24, 0, true},
                                         Case{60, 5, true}));

}  // namespace
}  // namespace holdfast::test
