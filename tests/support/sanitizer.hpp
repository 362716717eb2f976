// What a test must know of the sanitizer that it is built with.
#pragma once

namespace holdfast::test {

#ifdef __SANITIZE_THREAD__
inline constexpr bool kIsTsan = true;
#else
inline constexpr bool kIsTsan = false;
#endif

}  // namespace holdfast::test
