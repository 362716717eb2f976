// ctest-labels: noasan
//
// AddressSanitizer's own mappings are terabytes, which the comparison would read.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <stdexcept>
#include <thread>

#include "holdfast/holdfast.hpp"
#include "support/subject_process.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;
using Kind = SubjectProcess::Kind;

std::uint64_t word_in(const Space& space, std::uint64_t address) {
    std::uint64_t word = 0;
    must(space.read(VirtAddr(address), std::as_writable_bytes(std::span(&word, 1))));
    return word;
}

// Nothing of a failed import is left, in the store or of its frames.
void expect_nothing_left(Store& store) {
    EXPECT_TRUE(value_of(store.space_names()).empty());
    expect_clean(store);
    value_of(store.release_limbo());
    EXPECT_EQ(store.verify().frames_reachable, 0u);
}

TEST(ImportProcess, EveryByteAndEveryLineInAnotherProcess) {
    const TemporaryPool pool;
    const SubjectProcess subject;
    // Stopped by a signal before, so that it lies still for the comparison; it must stay stopped.
    subject.stop();
    {
        Store store = pool.create();
        std::uint64_t calls = 0, last_done = 0, last_total = 0;
        const auto report =
            value_of(import_process(store, "subject", subject.pid(),
                                    {.progress = [&](std::uint64_t done, std::uint64_t total) {
                                        ++calls;
                                        EXPECT_GT(done, last_done);
                                        EXPECT_LE(done, total);
                                        last_done = done;
                                        last_total = total;
                                    }}));
        EXPECT_TRUE(subject.comes_to('T'));
        EXPECT_FALSE(subject.is_traced());
        EXPECT_GE(calls, 2u);
        EXPECT_EQ(last_done, last_total);

        const SpaceInfo info = value_of(store.open_space("subject")).info();
        EXPECT_EQ(info.mapped_bytes, report.mapped_bytes);
        EXPECT_EQ(info.resident_bytes, report.stored_bytes);
        EXPECT_EQ(report.mapped_bytes + report.skipped_bytes, last_total);
        EXPECT_GE(report.skipped_bytes, 14 * kPageSize);  // behind the end of the brief file
        EXPECT_EQ(report.entry_point, 0u);
        EXPECT_GT(report.seconds, 0);
    }
    EXPECT_EQ(compare_in_new_process(pool.path(), "subject", subject.pid()), "");
    subject.go_on();
    EXPECT_TRUE(subject.makes_progress());
    expect_clean(pool.open());
}

TEST(ImportProcess, StandsStillWhileItIsCopied) {
    const TemporaryPool pool;
    Store store = pool.create(192_MiB);  // the names of many spaces come and go in it
    const SubjectProcess subject;
    for (int round = 0; round < 10; ++round) {
        const std::string name = fmt::format("round {}", round);
        value_of(import_process(store, name, subject.pid()));
        const Space space = value_of(store.open_space(name));
        const std::uint64_t ahead = word_in(space, subject.facts().ahead),
                            behind = word_in(space, subject.facts().behind);
        EXPECT_GT(ahead, 0u);
        EXPECT_TRUE(ahead == behind || ahead == behind + 1) << ahead << " " << behind;
        must(store.remove_space(name));
        value_of(store.release_limbo());
        EXPECT_FALSE(subject.is_traced());
        EXPECT_TRUE(subject.makes_progress());
    }
}

TEST(ImportProcess, LosesNoSignal) {
    const TemporaryPool pool;
    Store store = pool.create(192_MiB);  // the names of many spaces come and go in it
    const SubjectProcess subject;
    std::uint64_t sent = 0;
    const auto send = [&](int count) {
        for (int i = 0; i < count; ++i)
            if (sigqueue(subject.pid(), SIGRTMIN, {}) == 0) ++sent;
    };
    for (int round = 0; round < 20; ++round) {
        // Some come before it is stopped and some while it is; threads are caught on the way to
        // their handler.
        send(50);
        value_of(import_process(store, "subject", subject.pid(),
                                {.progress = [&](std::uint64_t, std::uint64_t) { send(5); }}));
        must(store.remove_space("subject"));
        value_of(store.release_limbo());
    }
    for (int i = 0; i < 2000 && subject.word_at(subject.facts().signals) != sent; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(subject.word_at(subject.facts().signals), sent);
}

TEST(ImportProcess, UntouchedMemoryCostsNothing) {
    const TemporaryPool pool;
    const SubjectProcess subject(Kind::sparse);
    subject.stop();
    {
        Store store = pool.create();
        const auto report = value_of(import_process(store, "sparse", subject.pid()));
        EXPECT_GT(report.mapped_bytes, 1024_GiB);
        EXPECT_LT(report.stored_bytes, 48_MiB);
        EXPECT_LT(report.seconds, 20);  // reading it all would take minutes
        const Space space = value_of(store.open_space("sparse"));
        const SubjectFacts& facts = subject.facts();
        for (const std::uint64_t at :
             {std::uint64_t{0}, facts.sparse_bytes / 2, facts.sparse_bytes - kPageSize})
            EXPECT_EQ(word_in(space, facts.sparse + at), subject.word_at(facts.sparse + at));
        for (const std::uint64_t at : {kPageSize, 77_GiB, facts.sparse_bytes / 2 + kPageSize,
                                       facts.sparse_bytes - 2 * kPageSize})
            EXPECT_EQ(word_in(space, facts.sparse + at), 0u);
    }
    EXPECT_EQ(compare_in_new_process(pool.path(), "sparse", subject.pid()), "");
}

TEST(ImportProcess, WorksWhenTheFirstThreadHasEnded) {
    const TemporaryPool pool;
    Store store = pool.create();
    const SubjectProcess subject(Kind::leaderless);
    ASSERT_EQ(subject.state(), 'Z');
    value_of(import_process(store, "leaderless", subject.pid()));
    const Space space = value_of(store.open_space("leaderless"));
    const std::uint64_t ahead = word_in(space, subject.facts().ahead),
                        behind = word_in(space, subject.facts().behind);
    EXPECT_GT(behind, 0u);
    EXPECT_LE(ahead - behind, 1u);
    EXPECT_NE(word_in(space, subject.facts().private_hole), 0u);
}

TEST(ImportProcess, LetsGoOfAThreadThatDoesNotStop) {
    const TemporaryPool pool;
    Store store = pool.create();
    SubjectProcess subject(Kind::in_vfork);
    const auto report = import_process(store, "busy", subject.pid());
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, ErrorCode::busy);
    EXPECT_THAT(report.error().message, HasSubstr("does not stop"));
    expect_nothing_left(store);
    EXPECT_TRUE(subject.makes_progress());
    subject.release();
    EXPECT_TRUE(subject.comes_to('S'));
    EXPECT_FALSE(subject.is_traced());
    value_of(import_process(store, "later", subject.pid()));
}

TEST(ImportProcess, RefusesWhatIsNoOtherProcess) {
    const TemporaryPool pool;
    Store store = pool.create();
    const auto refused = [&](pid_t pid) { return import_process(store, "none", pid).error(); };
    EXPECT_EQ(refused(0).code, ErrorCode::invalid_argument);
    EXPECT_EQ(refused(-5).code, ErrorCode::invalid_argument);
    EXPECT_EQ(refused(getpid()).code, ErrorCode::invalid_argument);
    EXPECT_THAT(refused(getpid()).message, HasSubstr(std::to_string(getpid())));
    std::thread([&] { EXPECT_EQ(refused(gettid()).code, ErrorCode::invalid_argument); }).join();
    const pid_t unused = 4'194'304 - 1;  // the greatest id there can be on 64 bits, less one
    EXPECT_EQ(refused(unused).code, ErrorCode::not_found);
    EXPECT_THAT(refused(unused).message, HasSubstr(std::to_string(unused)));

    const pid_t ended = fork();
    if (ended == 0) _exit(0);
    siginfo_t info{};
    waitid(P_PID, static_cast<id_t>(ended), &info, WEXITED | WNOWAIT);
    EXPECT_EQ(refused(ended).code, ErrorCode::not_found);
    EXPECT_THAT(refused(ended).message, HasSubstr("ended"));
    EXPECT_EQ(waitpid(ended, nullptr, 0), ended);
    expect_nothing_left(store);
}

TEST(ImportProcess, RefusesATakenNameBeforeItStopsAnything) {
    const TemporaryPool pool;
    Store store = pool.create();
    value_of(store.create_space("taken"));
    const SubjectProcess subject;
    const auto report = import_process(store, "taken", subject.pid());
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, ErrorCode::already_exists);
    EXPECT_TRUE(value_of(value_of(store.open_space("taken")).maps()).empty());
}

TEST(ImportProcess, SaysWhenItMayNotTrace) {
    if (geteuid() != 0) GTEST_SKIP() << "only root can make a process that it may not trace";
    const TemporaryPool pool;
    const SubjectProcess subject;
    const pid_t importer = fork();
    if (importer == 0) {
        // Another user than the subject's. The pool is made after the change, so that it is its
        // own.
        if (setgid(65534) != 0 || setuid(65534) != 0) _exit(9);
        const TemporaryPool own;
        Store store = own.create();
        const auto report = import_process(store, "none", subject.pid());
        const bool right = !report && report.error().code == ErrorCode::permission_denied &&
                           report.error().message.find("ptrace_scope") != std::string::npos;
        unlink(own.path().c_str());
        _exit(right ? 0 : 1);
    }
    int status = -1;
    waitpid(importer, &status, 0);
    EXPECT_EQ(status, 0);
    EXPECT_TRUE(subject.makes_progress());
}

TEST(ImportProcess, LeavesNothingOfAProcessThatEndsMeanwhile) {
    const TemporaryPool pool;
    Store store = pool.create();
    for (const bool at_the_end : {false, true}) {
        SubjectProcess subject;
        const auto kill_it = [&](std::uint64_t done, std::uint64_t total) {
            if (!at_the_end || done == total) kill(subject.pid(), SIGKILL);
        };
        const auto report = import_process(store, "short", subject.pid(), {.progress = kill_it});
        ASSERT_FALSE(report);
        EXPECT_EQ(report.error().code, ErrorCode::not_found);
        EXPECT_THAT(report.error().message, HasSubstr("ended while it was imported"));
        EXPECT_THAT(report.error().message, HasSubstr(std::to_string(subject.pid())));
        expect_nothing_left(store);
        // How it ended is still there for its parent.
        const int status = subject.end();
        EXPECT_TRUE(WIFSIGNALED(status));
        EXPECT_EQ(WTERMSIG(status), SIGKILL);
    }
    const SubjectProcess subject;
    value_of(import_process(store, "short", subject.pid()));
    expect_clean(store);
}

TEST(ImportProcess, LeavesNothingOfAnImportThatWasGivenUp) {
    const TemporaryPool pool;
    Store store = pool.create();
    const SubjectProcess subject;
    const auto give_up = [](std::uint64_t, std::uint64_t) {
        throw std::domain_error("enough of it");
    };
    EXPECT_THROW(value_of(import_process(store, "short", subject.pid(), {.progress = give_up})),
                 std::domain_error);
    expect_nothing_left(store);
    EXPECT_FALSE(subject.is_traced());
    EXPECT_TRUE(subject.makes_progress());
}

TEST(ImportProcess, LeavesNothingWhereThereIsNoRoom) {
    const TemporaryPool pool;
    Store store = pool.create(12_MiB);
    const SubjectProcess subject;
    const auto report = import_process(store, "large", subject.pid());
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, ErrorCode::no_space);
    expect_nothing_left(store);
    EXPECT_FALSE(subject.is_traced());
    EXPECT_TRUE(subject.makes_progress());
}

TEST(ImportProcess, RefusesAnAddressSpaceThatIsTooLargeForTheLevels) {
    const TemporaryPool pool;
    Store store = pool.create();
    const SubjectProcess subject;
    const auto report = import_process(store, "small", subject.pid(), {.levels = Levels::three});
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, ErrorCode::invalid_argument);
    expect_nothing_left(store);
    value_of(import_process(store, "five", subject.pid(), {.levels = Levels::five}));
    expect_clean(store);
}

}  // namespace
}  // namespace holdfast::test

int main(int argc, char** argv) { return holdfast::test::image_test_main(argc, argv); }
