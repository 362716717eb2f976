// ctest-labels: noasan
//
// `Pool::commit`, in each of its ways, crashed by the harness in every state that a crash may
// leave: all of its words are as before or all as after, and what the thread has flushed and not
// drained before the commit is there if they are as after.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <ostream>

#include "holdfast/crash.hpp"
#include "pool/pool.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

constexpr std::size_t kPoolBytes = std::size_t{8} << 20, kRootBytes = 8192;
constexpr std::size_t kContentAt = kRootBytes - 64;
constexpr const char* kTestLayout = "commit-test";

struct Case {
    std::size_t words;
    std::size_t unchanged;     // so many more that have their value already
    bool body;                 // writes as many bytes in the same transaction
    std::size_t states = 300;  // to try at each point; long commits have many points
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

class CommitSubject final : public crash::Subject {
  public:
    explicit CommitSubject(const Case& of) : case_(of), body_word_(of.words + of.unchanged) {}
    std::string name() const override {
        return fmt::format("commit-{}-{}-{}", case_.words, case_.unchanged, case_.body);
    }

    Result<void> set_up(const std::string& path) override {
        auto pool = pool::Pool::create(path, kPoolBytes, 0600, true, kTestLayout, kRootBytes);
        if (!pool) return std::unexpected(pool.error());
        for (std::size_t i = 0; i <= body_word_; ++i) *word(**pool, i) = old_value(i);
        *content(**pool) = 0;
        return {};
    }

    Result<void> run(const std::string& path, crash::Operations& operations) override {
        auto pool = pool::Pool::open(path, true, false, kTestLayout, kRootBytes);
        if (!pool) return std::unexpected(pool.error());
        operations.begin();
        *content(**pool) = 1;
        (*pool)->flush(content(**pool), sizeof(std::uint64_t));
        pool::WriteSet writes;
        for (std::size_t i = 0; i < body_word_; ++i)
            writes.store(word(**pool, i), i < case_.words ? new_value(i) : old_value(i),
                         i % 2 == 0 ? pool::WordClass::undo : pool::WordClass::publish);
        pool::Pool::Body body;
        if (case_.body)
            body = [&](pool::TransactionScope& scope) -> Result<void> {
                const std::uint64_t value = new_value(body_word_);
                scope.write(word(**pool, body_word_), std::as_bytes(std::span(&value, 1)));
                return {};
            };
        if (auto done = (*pool)->commit(writes, body); !done) return done;
        operations.acknowledge();
        return {};
    }

    std::string check(const std::string& path, const crash::Moment& moment) override {
        const auto pool = pool::Pool::open(path, true, false, kTestLayout, kRootBytes);
        if (!pool) return pool.error().message;
        const bool is_after = *word(**pool, 0) == new_value(0);
        if (moment.acknowledged == 1 && !is_after) return "what was committed is gone";
        for (std::size_t i = 0; i <= body_word_; ++i) {
            const bool changes = i < case_.words || (i == body_word_ && case_.body);
            const std::uint64_t wanted = is_after && changes ? new_value(i) : old_value(i);
            if (*word(**pool, i) != wanted)
                return fmt::format("word 0 is {}, word {} is {} and should be {}", *word(**pool, 0),
                                   i, *word(**pool, i), wanted);
        }
        if (is_after && *content(**pool) != 1)
            return "committed without the content that was flushed before";
        return {};
    }

  private:
    Case case_;
    std::size_t body_word_;
};

class Commit : public testing::TestWithParam<Case> {};

TEST_P(Commit, LeavesTheWordsBeforeOrAfter) {
    CommitSubject subject(GetParam());
    const crash::Outcome outcome =
        value_of(crash::run(subject, {.states_per_window = GetParam().states, .jobs = 2}));
    for (const crash::Violation& violation : outcome.violations)
        ADD_FAILURE() << violation.text << "\n  " << violation.token;
    EXPECT_GT(outcome.states, 30U) << "hardly anything was judged";
}

// One word; the redo log alone; undo log and redo log; a transaction with a body; and logs longer
// than a lane has room for: of undo words, of publish words, of both.
INSTANTIATE_TEST_SUITE_P(Of, Commit,
                         testing::Values(Case{1, 0, false}, Case{1, 3, false}, Case{2, 0, false},
                                         Case{3, 1, false}, Case{24, 0, false}, Case{25, 0, false},
                                         Case{20, 30, false}, Case{1, 1, true}, Case{24, 0, true},
                                         Case{60, 5, true}, Case{50, 0, false, 20},
                                         Case{150, 0, true, 20}));

// Where frames have taken all there was, what makes room again must not need any.
TEST(CommitInAFullPool, NeedsNoRoomForItsLogs) {
    const TemporaryPool place;
    const auto pool =
        value_of(pool::Pool::create(place.path(), kPoolBytes, 0600, true, kTestLayout, kRootBytes));
    std::optional<pool::Offset> filler;  // larger than what there is for logs
    pool::WriteSet none;
    must(pool->commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
        auto made = scope.allocate(2 << 20);
        if (!made) return std::unexpected(made.error());
        filler = *made;
        return {};
    }));
    // Chunk by chunk, as regions take them; an object has 16 bytes of header.
    while (pool->commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
        const auto made = scope.allocate((256 << 10) - 16);
        return made ? Result<void>() : std::unexpected(made.error());
    })) {
    }
    const auto word_of = [&](std::size_t index) {
        return reinterpret_cast<std::uint64_t*>(pool->at(*filler)) + 3 * index;
    };
    constexpr std::size_t kWords = 2000;
    const auto commit = [&](std::uint64_t value, const pool::Pool::Body& body) {
        pool::WriteSet writes;
        for (std::size_t i = 0; i < kWords; ++i)
            writes.store(word_of(i), value,
                         i % 2 == 0 ? pool::WordClass::undo : pool::WordClass::publish);
        return pool->commit(writes, body);
    };
    for (const std::uint64_t value : {1, 2, 3}) {
        must(commit(value, {}));
        for (std::size_t i = 0; i < kWords; ++i) ASSERT_EQ(*word_of(i), value);
    }
    // What does not fit is refused, with the reason, and changes nothing.
    const auto done = commit(4, [&](pool::TransactionScope& scope) -> Result<void> {
        const std::vector<std::byte> content(2 << 20);
        scope.write(pool->at(*filler), content);
        return {};
    });
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::no_space) << done.error().message;
    for (std::size_t i = 0; i < kWords; ++i) ASSERT_EQ(*word_of(i), 3u);
}

}  // namespace
}  // namespace holdfast::test
