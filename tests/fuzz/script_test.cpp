// Workloads as text, and how they are shortened.
#include "subjects/script.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "subjects/shrink.hpp"
#include "subjects/workloads.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::crash {
namespace {

using test::value_of;
using Verb = oracle::Call::Verb;

TEST(Script, IsTheSameAfterItsText) {
    for (const NamedWorkload& workload : workloads()) {
        const std::string text = value_of(find_workload(workload.name)).to_text();
        EXPECT_EQ(value_of(Script::parse(workload.name, text)).to_text(), text);
    }
    const std::string text = value_of(find_workload("mix-7-20")).to_text();
    EXPECT_EQ(value_of(Script::parse("mix", text)).to_text(), text);
}

TEST(Script, KnowsWhatThePoolIsLikeAndWhatFails) {
    const std::string text =
        "pool 12MiB\nframes 1MiB\nlanes 1024\ncreate a\nrepeat 3 0x2000 map a 0x1000 1 rw\n"
        "operations\nfull map a 0x10000 5 r\nbegin\nmap a 0x20000 1 r\nunmap a 0x1000 1\nfull\n";
    const Script script = value_of(Script::parse("mine", text));
    EXPECT_EQ(script.frames_bytes, 1U << 20);
    EXPECT_EQ(script.lanes, 1024U);
    ASSERT_EQ(script.set_up.size(), 4U);
    EXPECT_EQ(script.set_up.back().calls.front().range.start, VirtAddr(0x5000));
    ASSERT_EQ(script.operations.size(), 2U);
    EXPECT_TRUE(script.operations[0].finds_full && script.operations[1].finds_full);
    EXPECT_EQ(script.operations[1].calls.size(), 2U);
    EXPECT_EQ(value_of(Script::parse("mine", script.to_text())).to_text(), script.to_text());
    EXPECT_NE(script.to_text().find("full map a"), std::string::npos);
    EXPECT_FALSE(Script::parse("mine", "create a\nbegin\nmap a 0 1 r\nfull\n"));
}

TEST(Script, SaysWhatIsWrongWithALine) {
    const auto message = [](const std::string& text) {
        const auto script = Script::parse("mine", text);
        return script ? std::string() : script.error().message;
    };
    EXPECT_EQ(message("create a\noperations\nmap a 0x1000 rw\n"),
              "workload mine, line 3: \"rw\" is no number of pages");
    EXPECT_EQ(message("create a\nmop a\n"), "workload mine, line 2: there is no call \"mop\"");
    EXPECT_EQ(message("create a\nbegin\nremove a\n"),
              "workload mine: a transaction has no `commit`");
    EXPECT_EQ(message("create a\noperations\n"), "workload mine has no operations");
    EXPECT_NE(message("create a 7\n"), "");
    EXPECT_NE(message("unmap a 0 1 2\n"), "");
    EXPECT_NE(value_of(find_workload("mix-1")).operations.size(), 0U);
    EXPECT_FALSE(find_workload("mix-"));
    EXPECT_FALSE(find_workload("no_such"));
}

TEST(Shrink, LeavesOutAllThatTheFailureDoesNotNeed) {
    const Script script = value_of(Script::parse("long", R"(
        create a
        create b
        create d 5
        map a 0x40000000 3 rw
        lazy b 0x50000000 4 rw
        fork a e
        write a 0x40000000 7
        operations
        unmap a 0x40000000 1
        map a 0x60000000 40 rw
        begin
        rename b c
        map a 0x70000000 2 r
        protect a 0x40001000 1 r
        commit
        write c 0x50001000 9
        guard d 0x40000000 2
        map c 0x40000000 5 rw
        release 10
    )"));
    const auto count = [](const Script& of, Verb verb) {
        std::size_t calls = 0;
        for (const auto* steps : {&of.set_up, &of.operations})
            for (const Step& step : *steps)
                calls += static_cast<std::size_t>(
                    std::count_if(step.calls.begin(), step.calls.end(),
                                  [&](const oracle::Call& call) { return call.verb == verb; }));
        return calls;
    };
    ASSERT_GT(count(script, Verb::map), 1U);
    unsigned tried = 0;
    // "Fails" if a page is mapped in an operation: needs that call, and the space it is in.
    const auto fails = [&](const Script& candidate) -> Result<bool> {
        ++tried;
        return std::any_of(
            candidate.operations.begin(), candidate.operations.end(), [](const Step& step) {
                return std::any_of(step.calls.begin(), step.calls.end(),
                                   [](const oracle::Call& call) { return call.verb == Verb::map; });
            });
    };
    ASSERT_TRUE(value_of(fails(script)));
    const Script shortest = value_of(shrink(script, fails));
    EXPECT_TRUE(value_of(fails(shortest)));
    EXPECT_EQ(shortest.operations.size(), 1U);
    EXPECT_LE(shortest.set_up.size() + shortest.operations.front().calls.size(), 3U)
        << shortest.to_text();
    EXPECT_GT(tried, 10U);
}

}  // namespace
}  // namespace holdfast::crash
